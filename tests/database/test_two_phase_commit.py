"""Two-phase commit: PostgreSQL cannot prepare a transaction that has executed NOTIFY."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from brain.database.migrations import migrate
from tests.database.log_reading import events_after, keys, reading
from tests.database.servers import Server, binaries_of, new_server
from tests.end_to_end.brain import PATIENCE_SECONDS, message, running_brain
from tests.postgres import new_database
from tests.schemas import every_schema

pytestmark = pytest.mark.postgres_versions


@pytest.fixture(scope="module")
async def server(postgres: str) -> AsyncIterator[Server]:
    with new_server(await binaries_of(postgres), {"max_prepared_transactions": "5"}) as server:
        yield server


@pytest.fixture
async def database(server: Server) -> AsyncIterator[str]:
    async with new_database(server.url) as url:
        await migrate(url, every_schema())
        yield url


@asynccontextmanager
async def sleeper(database: str) -> AsyncIterator[None]:
    """Hold the lock of a parked node, which makes writers notify."""
    connection = await asyncpg.connect(database)
    await connection.execute("SELECT pg_advisory_lock_shared(5221, 2)")
    yield
    await connection.close()


async def prepare(connection: asyncpg.Connection, id: str) -> None:
    await connection.execute("BEGIN")
    try:
        await connection.execute(f"INSERT INTO tasks (id) VALUES ('{id}')")
        await connection.execute(f"PREPARE TRANSACTION '{id}'")
    except asyncpg.PostgresError:
        await connection.execute("ROLLBACK")
        raise


async def test_a_transaction_that_has_notified_cannot_be_prepared(
    database: str, connection: asyncpg.Connection
) -> None:
    async with sleeper(database):
        with pytest.raises(asyncpg.FeatureNotSupportedError, match="NOTIFY"):
            await prepare(connection, "refused")

    assert await connection.fetchval("SELECT count(*) FROM tasks") == 0


async def test_while_no_node_is_parked_transactions_can_be_prepared(
    database: str, connection: asyncpg.Connection
) -> None:
    async with reading(database) as log:
        start = await log.tick()
        await prepare(connection, "quiet")
        await connection.execute("COMMIT PREPARED 'quiet'")

        assert keys(await events_after(log, start)) == [["quiet"]]


@pytest.mark.parametrize("way", ["session", "role"])
async def test_without_notifications_changes_are_read_after_commit_prepared(
    database: str, connection: asyncpg.Connection, way: str
) -> None:
    if way == "session":
        await connection.execute("SET brain.notify = off")
    else:
        await connection.execute("ALTER ROLE postgres SET brain.notify = off")
        connection = await asyncpg.connect(database)
        await connection.execute("ALTER ROLE postgres RESET brain.notify")
    async with sleeper(database), reading(database) as log:
        start = await log.tick()
        await prepare(connection, "later")
        await connection.execute("INSERT INTO tasks (id) VALUES ('meanwhile')")
        assert keys(await events_after(log, start)) == [["meanwhile"]]

        middle = await log.tick()
        assert await events_after(log, middle) == []
        await connection.execute("COMMIT PREPARED 'later'")
        assert keys(await events_after(log, middle)) == [["later"]]
    await connection.close()


async def test_changes_that_are_rolled_back_after_prepare_are_never_read(
    database: str, connection: asyncpg.Connection
) -> None:
    async with sleeper(database), reading(database) as log:
        start = await log.tick()
        await connection.execute("SET brain.notify = off")
        await prepare(connection, "never")
        await connection.execute("ROLLBACK PREPARED 'never'")
        await connection.execute("INSERT INTO tasks (id) VALUES ('after')")

        assert keys(await events_after(log, start)) == [["after"]]


async def test_a_published_message_can_be_prepared_too(
    database: str, connection: asyncpg.Connection
) -> None:
    async with sleeper(database), reading(database) as log:
        start = await log.tick()
        await connection.execute("SET brain.notify = off; BEGIN; SELECT brain.publish('news', 'x')")
        await connection.execute("PREPARE TRANSACTION 'published'")
        assert await events_after(log, start) == []

        await connection.execute("COMMIT PREPARED 'published'")
        assert [event.type for event in await events_after(log, start)] == ["x"]


async def test_a_parked_node_reads_prepared_changes_at_its_next_poll(
    tmp_path: Path, database: str, connection: asyncpg.Connection
) -> None:
    often = {"BRAIN_IDLE_POLL_SECONDS": "0.2"}
    async with running_brain(tmp_path, "--database-url", database, **often) as brain:
        async with brain.client() as client:
            await asleep(connection)
            await connection.execute("SET brain.notify = off")
            await prepare(connection, "prepared")
            await connection.execute("INSERT INTO tasks (id) VALUES ('before')")
            assert (await message(client))["data"]["id"] == "before"
            await connection.execute("COMMIT PREPARED 'prepared'")
            assert (await message(client))["data"]["id"] == "prepared"


async def asleep(connection: asyncpg.Connection) -> None:
    """Wait until the node is parked."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await connection.fetchval("SELECT pg_try_advisory_xact_lock(5221, 2)"):
            await asyncio.sleep(0.02)
