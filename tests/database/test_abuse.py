"""A role that may write to watched tables can at most delay nodes and other writers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import asyncpg
import pytest

from brain.database.log import Log, NewestBatch
from brain.database.migrations import migrate
from brain.listener import batch_source as listener_module
from brain.message.cursor import Cursor
from tests.database.log_reading import events_after, keys, reading
from tests.database.servers import binaries_of, new_server
from tests.database.stage import staged
from tests.database.stranger import Stranger, strange
from tests.listener.test_batch_source import listening, parked
from tests.schemas import every_schema
from tests.tasks import insert

pytestmark = pytest.mark.postgres_versions

NOTIFICATIONS = 10_000
# PostgreSQL 17 and newer can have a small one; half a minute fills that of others.
SMALL_QUEUE = {"max_notify_queue_pages": "64"}
LARGE_BYTES = 20_000_000
# A value that compression does not make small.
LARGE = f"(SELECT string_agg(md5(n::text), '') FROM generate_series(1, {LARGE_BYTES // 32}) n)"


@pytest.fixture
async def stranger(postgres: str, database: str) -> AsyncIterator[Stranger]:
    async with strange(postgres, database) as stranger:
        yield stranger


class CountingLog(Log):
    reads = 0

    async def newest(self, cursor: Cursor) -> NewestBatch:
        CountingLog.reads += 1
        return await super().newest(cursor)


async def test_needless_notifications_send_nothing_and_cost_few_reads(
    stranger: Stranger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener_module, "Log", CountingLog)
    session = await stranger.session()
    async with listening(stranger.admin_url) as node:
        await parked(stranger.admin)
        CountingLog.reads = 0
        for payload in ("", "tasks", '{"id": "forged"}'):
            await session.execute("SELECT pg_notify('brain', $1)", payload)
        await session.execute(
            "SELECT pg_notify('brain', n::text) FROM generate_series(1, $1) n", NOTIFICATIONS
        )
        await insert(session, "first")

        assert await node.keys(1) == ["first"]
        reads = CountingLog.reads
        await parked(stranger.admin)
        await insert(session, "second")
        assert await node.keys(1) == ["second"]
        assert node.is_empty
    assert reads < NOTIFICATIONS / 100


@pytest.mark.parametrize("lock", ["pg_advisory_lock", "pg_advisory_lock_shared"])
async def test_a_role_that_holds_the_advisory_locks_stops_no_node(
    stranger: Stranger, lock: str
) -> None:
    holder, writer = await stranger.session(), await stranger.session()
    for number in range(1, 5):
        await holder.execute(f"SELECT {lock}(5221, {number})")
    async with listening(stranger.admin_url) as node, reading(stranger.admin_url) as log:
        start = await log.tick()
        await writer.execute("SET lock_timeout = '5s'")
        await insert(writer, "a")
        await insert(holder, "b")

        assert await node.keys(2) == ["a", "b"]
        assert keys(await events_after(log, start)) == [["a"], ["b"]]
        assert await stranger.admin.fetchval("SELECT brain.trim('0 s')") == 1


async def test_a_role_that_waits_for_the_lock_of_parked_nodes_delays_nobody(
    stranger: Stranger,
) -> None:
    waiter, writer = await stranger.session(), await stranger.session()
    async with listening(stranger.admin_url) as node:  # it polls once a minute
        await parked(stranger.admin)
        waiting = asyncio.create_task(waiter.execute("SELECT pg_advisory_lock(5221, 2)"))
        while not await stranger.admin.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
            pass
        await writer.execute("SET lock_timeout = '5s'")
        for key in ("a", "b"):
            await insert(writer, key)
            assert await node.keys(1) == [key]
        assert not waiting.done()
        # Two-phase commit goes on without notifications.
        assert not await stranger.admin.fetchval(
            "SELECT set_config('brain.notify', 'off', false), brain.node_is_waited_for()", column=1
        )
        await stranger.admin.execute("SELECT pg_terminate_backend($1)", waiter.get_server_pid())
        with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            await waiting


@pytest.mark.parametrize("lock", ["pg_advisory_lock", "pg_advisory_lock_shared"])
async def test_a_role_that_holds_the_advisory_locks_stops_no_migration(
    postgres: str, stranger: Stranger, lock: str
) -> None:
    holder = await stranger.session()
    await holder.execute(f"SELECT {lock}(5221, n) FROM generate_series(1, 5) n")
    await stranger.admin.execute("UPDATE brain.schema_versions SET sha256 = ''")
    async with asyncio.timeout(30):
        assert await migrate(stranger.admin_url, every_schema())


async def test_a_role_that_listens_learns_only_that_something_happened(
    stranger: Stranger,
) -> None:
    notifications: list[tuple[object, ...]] = []
    spy = await stranger.session()
    await spy.add_listener("brain", lambda *arguments: notifications.append(arguments[2:]))
    async with listening(stranger.admin_url) as node:
        await parked(stranger.admin)
        transaction = spy.transaction()
        await transaction.start()
        await spy.execute("SELECT pg_current_xact_id()")
        await insert(stranger.admin, "secret")
        assert await node.keys(1) == ["secret"]
        await spy.execute("SELECT 1")
        assert notifications == []

        await transaction.commit()
        await spy.execute("SELECT 1")
    assert notifications == [("brain", "")]
    await spy.reset()


@pytest.mark.parametrize("column", ["error", "title"], ids=["listed", "unlisted"])
async def test_a_huge_value_fails_no_writer(stranger: Stranger, column: str) -> None:
    session = await stranger.session()

    events = await stranger.events(
        f"INSERT INTO tasks (id, {column}) SELECT 'a', {LARGE}",
        f"UPDATE tasks SET {column} = {column} || 'more'",
        "UPDATE tasks SET progress = 1",
        f"UPDATE tasks SET {column} = NULL",
        "DELETE FROM tasks",
    )

    assert await session.fetchval("SELECT count(*) FROM tasks") == 0
    operations = "".join(event.operation.value for event in events)
    assert operations == ("IUUUD" if column == "error" else "IUD")
    logged = await stranger.admin.fetchval("SELECT sum(pg_column_size(e.*)) FROM brain.events e")
    assert logged < LARGE_BYTES / 1000


TIMEOUTS = "SELECT current_setting('lock_timeout'), current_setting('statement_timeout')"


async def test_a_writer_keeps_its_timeouts_and_waits_for_no_node(stranger: Stranger) -> None:
    session = await stranger.session()
    await session.execute("SET lock_timeout = '123ms'; SET statement_timeout = '4567ms'")
    for begun in ("SELECT brain.tick()", "SELECT brain.trim('1 hour')"):
        node: asyncpg.Connection = await asyncpg.connect(stranger.admin_url)
        await node.execute(f"BEGIN; {begun}")

        async with session.transaction():
            await insert(session, begun)
            await session.execute("UPDATE tasks SET progress = 1; DELETE FROM tasks")
            assert tuple(await session.fetchrow(TIMEOUTS) or ()) == ("123ms", "4567ms")

        assert tuple(await session.fetchrow(TIMEOUTS) or ()) == ("123ms", "4567ms")
        await node.close()


async def test_a_writer_waits_for_no_slot_that_another_keeps_from_being_emptied(
    stranger: Stranger,
) -> None:
    async with staged(stranger.admin_url) as stage:
        node, late, writer = await stage.session(), await stage.session(), await stage.session()
        await node.execute("SELECT brain.tick()")
        await late.execute("BEGIN")
        await insert(late, "late")

        trimming = stage.start(node.execute("SELECT brain.trim('0 s')"))
        await stage.waits_or_is_done(node, trimming)
        await writer.execute("SET lock_timeout = '10ms'")
        await insert(writer, "first")

        await trimming


@pytest.mark.parametrize(
    "query", ["SELECT FROM brain.{} FOR UPDATE", "INSERT INTO brain.{} DEFAULT VALUES"]
)
async def test_what_a_publisher_parses_holds_up_nobody(
    stranger: Stranger, connection: asyncpg.Connection, database: str, query: str
) -> None:
    """To parse a query is to lock its tables, without a right on them."""
    await stranger.let_publish()
    session = await stranger.session()
    async with reading(database) as log, session.transaction():
        for table in ("tick_lock", "trim_lock", "presence_lock"):
            await session.execute(f"PREPARE {table} AS {query.format(table)}")
        await insert(connection, "a")
        await connection.execute("SET lock_timeout = '1s'")

        assert (await log.tick()).tick > 0
        async with connection.transaction():
            await connection.execute(
                "SELECT brain.trim('1 hour'),"
                " brain.apply_presence(gen_random_uuid(), '{ann}', '{online}')"
            )
            locked = await connection.fetch(
                "SELECT relation::regclass::text FROM pg_locks"
                " WHERE pid = pg_backend_pid() AND mode = 'ShareUpdateExclusiveLock'"
            )
    assert {row[0] for row in locked} == {"brain.trim_lock", "brain.presence_lock"}


async def test_a_role_with_many_locks_does_not_make_each_row_cost_a_look_at_them(
    stranger: Stranger, connection: asyncpg.Connection
) -> None:
    waiting, holding = await stranger.session(), await stranger.session()
    await holding.execute("SELECT pg_advisory_lock_shared(5221, 2)")
    task = asyncio.create_task(waiting.execute("SELECT pg_advisory_lock(5221, 2)"))
    while not await connection.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
        await asyncio.sleep(0.01)
    async with connection.transaction():
        await insert(connection, "a")
        looked_in = await connection.fetchval("SELECT current_setting('brain.looked_in', true)")
        assert looked_in == str(await connection.fetchval("SELECT pg_current_xact_id()::text"))
        assert not await connection.fetchval("SELECT brain.node_is_waited_for()")
    await holding.execute("SELECT pg_advisory_unlock_all()")
    await task


@pytest.mark.one_version
async def test_a_full_queue_of_notifications_fails_no_writer(postgres: str) -> None:
    with new_server(await binaries_of(postgres), SMALL_QUEUE) as server:
        await migrate(server.url, every_schema())
        listening = await asyncpg.connect(server.url)
        filling = await asyncpg.connect(server.url)
        parked = await asyncpg.connect(server.url)
        try:
            await listening.execute("LISTEN y")
            await listening.execute("BEGIN; SELECT 1")
            with suppress(asyncpg.PostgresError):
                while True:
                    await filling.execute("SELECT pg_notify('y', repeat('x', 7900) || random())")
            await parked.execute("SELECT pg_advisory_lock_shared(5221, 2)")
            await insert(filling, "a")
        finally:
            for connection in (listening, filling, parked):
                connection.terminate()
