"""What a session of Brain is, whatever its role and its database say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import asyncpg
import pytest

from brain.database.connection import connected, opened_pool
from brain.database.log import LogConnection
from brain.database.migrations import migrate
from brain.database.session_settings import (
    PLANNED_AS_NEEDED,
    PLANNED_ONCE,
    SETTINGS,
    SETTINGS_SINCE,
)
from brain.database.snapshot import SnapshotReader
from brain.database.table_access import TableAccess
from brain.feeds.reader import FeedReader
from brain.listener.batch_source import BatchSource
from brain.message.event import Event
from brain.presence.cluster import Cluster
from brain.presence.tracker import PresenceTracker
from brain.publishing.messages import publish
from brain.settings import Settings
from tests.database.hostile import hostile_settings, make_hostile, ordinary_connection
from tests.database.log_reading import parsed
from tests.postgres import new_database
from tests.schemas import every_schema

pytestmark = pytest.mark.postgres_versions

PATIENCE_SECONDS = 20.0
RARELY = Settings(idle_poll_seconds=60)


@asynccontextmanager
async def events_of(
    url: str,
) -> AsyncIterator[tuple[BatchSource, asyncio.Queue[Event]]]:
    """Run a batch source, and collect its events."""
    source, events = BatchSource(url, RARELY), asyncio.Queue[Event]()

    async def collect() -> None:
        async for batch in source.batches():
            if not batch.ticks:
                for event in batch.events:
                    events.put_nowait(event)

    task = asyncio.create_task(collect())
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await source.live()
        yield source, events
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def wrong_settings(connection: LogConnection, plans: str) -> dict[str, str]:
    """Return the settings of a session that are not as Brain wants them, with what they are."""
    wanted = {**SETTINGS, "plan_cache_mode": plans}
    for major, newer in SETTINGS_SINCE.items():
        if connection.get_server_version().major >= major:
            wanted |= newer
    found = {name: await connection.fetchval("SELECT current_setting($1)", name) for name in wanted}
    assert found.keys() == hostile_settings(connection).keys()
    return {name: value for name, value in found.items() if value != wanted[name]}


@pytest.mark.parametrize("of_role", [False, True])
async def test_a_session_sets_what_it_needs_itself(database: str, of_role: bool) -> None:
    await make_hostile(database, of_role=of_role)
    async with connected(database) as connection:
        assert await wrong_settings(connection, PLANNED_ONCE["plan_cache_mode"]) == {}
    async with opened_pool(database) as pool:
        for _ in range(2):  # of one session
            async with pool.acquire() as connection:
                assert await wrong_settings(connection, PLANNED_AS_NEEDED["plan_cache_mode"]) == {}
        assert pool.get_size() == 1


async def test_what_a_function_leaves_behind_in_a_session_of_the_pool_is_gone(
    database: str, connection: asyncpg.Connection
) -> None:
    assignments = "".join(
        f"PERFORM set_config('{name}', '{value}', false);"
        for name, value in hostile_settings(connection).items()
    )
    await connection.execute(
        f"""
        CREATE FUNCTION leave_behind() RETURNS void LANGUAGE plpgsql AS $$BEGIN
            {assignments}
            PERFORM set_config('my.secret', 'of one client', false), pg_advisory_lock(77);
            CREATE TEMP TABLE tasks (id text);
            LISTEN gossip;
            SET ROLE pg_monitor;
        END$$
        """
    )
    async with opened_pool(database) as pool:
        async with pool.acquire() as borrowed:
            process = await borrowed.fetchval("SELECT pg_backend_pid()")
            await borrowed.execute("SELECT public.leave_behind()")
            assert await wrong_settings(borrowed, "auto") != {}

        async with pool.acquire() as borrowed:
            assert await borrowed.fetchval("SELECT pg_backend_pid()") == process
            assert await wrong_settings(borrowed, "auto") == {}
            left = await borrowed.fetchrow(
                """
                SELECT coalesce(current_setting('my.secret', true), '') AS secret,
                       to_regclass('pg_temp.tasks') AS temporary,
                       (SELECT count(*) FROM pg_locks
                         WHERE locktype = 'advisory' AND pid = pg_backend_pid()) AS locks,
                       (SELECT count(*) FROM pg_listening_channels()) AS listening,
                       current_user = session_user AS is_itself
                """
            )
            assert left is not None
            assert tuple(left) == ("", None, 0, 0, True)


async def test_a_session_that_cannot_be_reset_is_not_lent_again_and_its_borrower_has_its_result(
    database: str, connection: asyncpg.Connection
) -> None:
    async with opened_pool(database) as pool:
        async with pool.acquire() as borrowed:
            process = await borrowed.fetchval("SELECT pg_backend_pid()")
            await connection.execute("SELECT pg_terminate_backend($1, 10000)", process)

        assert await pool.fetchval("SELECT pg_backend_pid()") != process


async def test_a_connection_that_a_backend_passes_keeps_its_settings(database: str) -> None:
    await make_hostile(database)
    application = await ordinary_connection(database)
    await application.execute("DO 'BEGIN END'")  # PL/pgSQL brings settings of its own
    before = await application.fetch("SELECT name, setting FROM pg_settings")

    await publish("news", "greeting", {"text": "hello"}, connection=application)

    assert await application.fetch("SELECT name, setting FROM pg_settings") == before
    await application.close()


@pytest.mark.parametrize("of_role", [False, True])
async def test_everything_works_whatever_the_defaults_of_the_role_and_the_database_are(
    database: str, monkeypatch: pytest.MonkeyPatch, of_role: bool
) -> None:
    await make_hostile(database, of_role=of_role)
    monkeypatch.setenv("BRAIN_DATABASE_URL", database)
    application = await ordinary_connection(database)
    one, other = (Cluster(database, PresenceTracker(), PATIENCE_SECONDS) for _ in range(2))
    nodes = [asyncio.create_task(node.run()) for node in (one, other)]
    async with events_of(database) as (source, events), opened_pool(database) as pool:
        # Longer than any of the timeouts.
        await application.execute("SELECT pg_sleep(0.5)")
        await application.execute("INSERT INTO tasks (id, title) VALUES ('a', 'b')")
        assert (await events.get()).key_text == "a"
        await publish("news", "greeting", {"text": "hello"})
        assert (await events.get()).type == "greeting"
        snapshot = await SnapshotReader(TableAccess(10_000)).read(pool, frozenset({"tasks"}))
        assert [parsed(row)["id"] for row in snapshot.tables["tasks"]] == ["a"]
        assert await FeedReader(pool, 10_000, PATIENCE_SECONDS).state("queue", None) is not None
        await pool.fetchval("SELECT brain.trim('0 s')")
        async with asyncio.timeout(PATIENCE_SECONDS):
            while await application.fetchval("SELECT count(*) FROM brain.nodes") < 2:
                await asyncio.sleep(0.01)
        assert source.statistics().reconnections == 0
    for node in nodes:
        node.cancel()
    await asyncio.wait(nodes)
    await application.close()


async def test_a_database_with_such_defaults_is_migrated(postgres: str) -> None:
    async with new_database(postgres) as url:
        await make_hostile(url)
        await migrate(url, every_schema())

        application = await ordinary_connection(url)
        async with events_of(url) as (_, events):
            await application.execute("INSERT INTO tasks (id) VALUES ('a')")
            assert (await events.get()).key_text == "a"
        await application.close()


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
async def test_readers_do_not_conflict_with_writers_at_any_isolation_level(
    database: str, connection: asyncpg.Connection, level: str
) -> None:
    """Each writer has a table of its own, so that without Brain none of them would fail."""
    writers, changes = 8, 60
    for number in range(writers):
        await connection.execute(
            f"CREATE TABLE own_{number} (id int PRIMARY KEY, n int);"
            f"INSERT INTO own_{number} VALUES (1, 0);"
            f"SELECT brain.watch('own_{number}', 'own_{number}', '{{n}}')"
        )
    name = await connection.fetchval("SELECT current_database()")
    await connection.execute(f"ALTER DATABASE {name} SET default_transaction_isolation = '{level}'")

    async def write(number: int) -> None:
        writer = await asyncpg.connect(database)
        for _ in range(changes):
            await writer.execute(f"UPDATE own_{number} SET n = n + 1")
        await writer.close()

    async with events_of(database) as (one, events), events_of(database) as (other, others):
        await asyncio.gather(*map(write, range(writers)))

        for queue in (events, others):
            found = [await queue.get() for _ in range(writers * changes)]
            assert {event.channel for event in found} == {f"own_{n}" for n in range(writers)}
        assert one.statistics().reconnections == other.statistics().reconnections == 0
