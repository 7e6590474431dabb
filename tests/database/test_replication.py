"""Changes that logical replication applies to a watched table."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from brain.database.migrations import migrate
from brain.message.event import Operation
from tests.database.log_reading import events_after, keys, parsed, reading
from tests.database.servers import Server, binaries_of, new_server
from tests.postgres import new_database
from tests.schemas import every_schema

pytestmark = pytest.mark.postgres_versions

PATIENCE_SECONDS = 20.0
TABLE = "CREATE TABLE things (id int PRIMARY KEY, a text)"


@pytest.fixture(scope="module")
async def server(postgres: str) -> AsyncIterator[Server]:
    settings = {"wal_level": "logical", "wal_retrieve_retry_interval": "100ms"}
    with new_server(await binaries_of(postgres), settings) as server:
        yield server


@pytest.fixture
async def database(server: Server) -> AsyncIterator[str]:
    async with new_database(server.url) as url:
        await migrate(url, every_schema())
        yield url


@pytest.fixture
async def publisher(server: Server) -> AsyncIterator[asyncpg.Connection]:
    async with new_database(server.url) as url:
        connection = await asyncpg.connect(url)
        await connection.execute(f"{TABLE}; CREATE PUBLICATION changes FOR TABLE things")
        yield connection
        await connection.close()


@asynccontextmanager
async def subscribed(
    publisher: asyncpg.Connection, connection: asyncpg.Connection
) -> AsyncIterator[None]:
    """Apply the publisher's changes here until the context ends."""
    port = await publisher.fetchval("SELECT inet_server_port()")
    name = await publisher.fetchval("SELECT current_database()")
    # Created beforehand: in the publisher's own server, CREATE SUBSCRIPTION would wait for itself.
    await publisher.execute(f"SELECT pg_create_logical_replication_slot('{name}', 'pgoutput')")
    await connection.execute(
        f"CREATE SUBSCRIPTION {name} CONNECTION"
        f" 'host=127.0.0.1 port={port} user=postgres dbname={name}'"
        " PUBLICATION changes WITH (create_slot = false)"
    )
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not await connection.fetchval(
                "SELECT bool_and(srsubstate = 'r') FROM pg_subscription_rel"
            ):
                await asyncio.sleep(0.02)
        yield
    finally:
        await connection.execute(f"DROP SUBSCRIPTION {name}")


@asynccontextmanager
async def parked(database: str, notified: asyncio.Event) -> AsyncIterator[None]:
    """Act as a parked node, and set `notified` on each notification."""
    sleeper = await asyncpg.connect(database)
    await sleeper.add_listener("brain", lambda *_: notified.set())
    await sleeper.execute("SELECT pg_advisory_lock_shared(5221, 2)")
    yield
    await sleeper.close()


async def applied(publisher: asyncpg.Connection) -> None:
    """Wait until the subscriber has applied all changes committed at the publisher."""
    now = await publisher.fetchval("SELECT pg_current_wal_lsn()::text")
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await publisher.fetchval(
            "SELECT bool_and(confirmed_flush_lsn >= $1::text::pg_lsn) FROM pg_replication_slots"
            " WHERE database = current_database()",
            now,
        ):
            await asyncio.sleep(0.02)


async def test_applied_changes_are_not_logged_by_default(
    database: str, connection: asyncpg.Connection, publisher: asyncpg.Connection
) -> None:
    await connection.execute(f"{TABLE}; SELECT brain.watch('things', 'things', '{{id,a}}')")
    async with subscribed(publisher, connection), reading(database) as log:
        start = await log.tick()
        await publisher.execute("INSERT INTO things VALUES (1, 'a')")
        await applied(publisher)
        assert await connection.fetchval("SELECT a FROM things") == "a"
        assert await events_after(log, start) == []

        await connection.execute("UPDATE things SET a = 'here'")
        assert [parsed(event.data) for event in await events_after(log, start)] == [
            {"id": 1, "a": "here"}
        ]


@pytest.mark.parametrize("timing", ["immediate", "deferred"])
async def test_applied_changes_are_logged_and_parked_nodes_are_notified(
    database: str, connection: asyncpg.Connection, publisher: asyncpg.Connection, timing: str
) -> None:
    await connection.execute(TABLE)
    await connection.execute(
        "SELECT brain.watch('things', 'things', '{id,a}', timing => $1, replicated => true)", timing
    )
    notified = asyncio.Event()
    async with (
        parked(database, notified),
        subscribed(publisher, connection),
        reading(database) as log,
    ):
        start = await log.tick()
        for statement in (
            "INSERT INTO things VALUES (1, 'a'), (2, 'b')",
            "UPDATE things SET a = 'c' WHERE id = 1",
            "UPDATE things SET id = 3 WHERE id = 1",
            "DELETE FROM things WHERE id = 2",
            "TRUNCATE things",
        ):
            notified.clear()
            await publisher.execute(statement)
            async with asyncio.timeout(PATIENCE_SECONDS):
                await notified.wait()
        logged = [
            (event.operation.value, parsed(event.key)) for event in await events_after(log, start)
        ]
    assert logged == [
        ("I", [1]), ("I", [2]), ("U", [1]), ("D", [1]), ("U", [3]), ("D", [2]), ("T", None),
    ]  # fmt: skip


async def test_the_rows_that_a_subscription_begins_with_are_logged_as_insertions(
    database: str, connection: asyncpg.Connection, publisher: asyncpg.Connection
) -> None:
    await publisher.execute("INSERT INTO things SELECT n, 'old' FROM generate_series(1, 3) n")
    await connection.execute(
        f"{TABLE}; SELECT brain.watch('things', 'things', '{{id}}', replicated => true)"
    )
    async with reading(database) as log:
        start = await log.tick()
        async with subscribed(publisher, connection):
            events = await events_after(log, start)
    assert [(event.operation, parsed(event.key)) for event in events] == [
        (Operation.INSERT, [n]) for n in (1, 2, 3)
    ]


async def test_changes_applied_to_partitions_are_logged(
    database: str, connection: asyncpg.Connection, publisher: asyncpg.Connection
) -> None:
    """Also changes of a partition that was created after the table was watched."""
    await connection.execute(
        """
        CREATE TABLE things (id int PRIMARY KEY, a text) PARTITION BY RANGE (id);
        CREATE TABLE low PARTITION OF things FOR VALUES FROM (0) TO (10);
        SELECT brain.watch('things', 'things', '{id,a}', replicated => true);
        CREATE TABLE high PARTITION OF things FOR VALUES FROM (10) TO (20);
        """
    )
    async with subscribed(publisher, connection), reading(database) as log:
        start = await log.tick()
        await publisher.execute("INSERT INTO things VALUES (1, 'a'), (11, 'b')")
        await publisher.execute("UPDATE things SET id = 12 WHERE id = 1")
        await applied(publisher)
        logged = [
            (event.operation.value, parsed(event.key)) for event in await events_after(log, start)
        ]
        problems = await connection.fetchval(
            "SELECT problems FROM brain.watches WHERE channel = 'things'"
        )
    assert logged == [("I", [1]), ("I", [11]), ("D", [1]), ("I", [12])]
    assert problems == []


async def test_deferred_events_of_another_owner_need_a_subscription_that_runs_as_its_own_owner(
    database: str, connection: asyncpg.Connection, publisher: asyncpg.Connection
) -> None:
    """From PostgreSQL 16 on, it otherwise runs as the table's owner, which may not defer."""
    has_choice = connection.get_server_version().major >= 16
    role = f"owner_{connection.get_server_pid()}"
    await connection.execute(f"CREATE ROLE {role}; {TABLE}; ALTER TABLE things OWNER TO {role}")
    await connection.execute(
        "SELECT brain.watch('things', 'things', '{id}', timing => 'deferred', replicated => true)"
    )
    async with subscribed(publisher, connection), reading(database) as log:
        start = await log.tick()
        await publisher.execute("INSERT INTO things VALUES (1)")
        if has_choice:
            await refused(connection)
            name = await publisher.fetchval("SELECT current_database()")
            await connection.execute(f"ALTER SUBSCRIPTION {name} SET (run_as_owner = true)")
        await applied(publisher)
        assert keys(await events_after(log, start)) == [[1]]
    await connection.execute(f"DROP TABLE things; DROP ROLE {role}")


async def refused(connection: asyncpg.Connection) -> None:
    """Wait until a change could not be applied here."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await connection.fetchval(
            "SELECT bool_or(apply_error_count > 0) FROM pg_stat_subscription_stats"
            " JOIN pg_subscription ON oid = subid"
            " JOIN pg_database d ON d.oid = subdbid AND d.datname = current_database()"
        ):
            await asyncio.sleep(0.02)
