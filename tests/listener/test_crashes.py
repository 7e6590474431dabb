"""What a batch source yields when PostgreSQL crashes right after a delivery."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from brain.database.log import Log
from brain.database.migrations import migrate
from brain.listener.unflushed import Unflushed
from brain.message.event import Batch, Event
from tests.database.log_reading import reading
from tests.database.servers import binaries_of
from tests.database.stage import rewrite
from tests.faults.servers import OwnPostgres, own_postgres
from tests.listener.test_batch_source import (
    Collected,
    keys_of,
    listening,
    parked,
    reconnected,
    sessions_of_brain,
)
from tests.schemas import every_schema
from tests.tasks import insert

pytestmark = pytest.mark.postgres_versions

# The server writes to the disk only what a commit waits for.
LAZY = {"wal_writer_delay": "10s", "bgwriter_delay": "10s", "autovacuum": "off"}
WITHOUT_WAITING = "SET synchronous_commit = off"


@asynccontextmanager
async def migrated(database: str) -> AsyncIterator[OwnPostgres]:
    """Run a server of the version of `database`, with Brain's schema, until the context ends."""
    async with own_postgres((await binaries_of(database)).folder, LAZY) as server:
        await migrate(server.url, every_schema())
        yield server


@asynccontextmanager
async def writing(server: OwnPostgres, *settings: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(server.url)
    for setting in settings:
        await connection.execute(setting)
    try:
        yield connection
    finally:
        connection.terminate()


class FlushGate:
    """Stops every node before it has its tick flushed, while it is closed."""

    def __init__(self, flush: Callable[[Log], Coroutine[Any, Any, None]]) -> None:
        self._flush = flush
        self.is_reached = asyncio.Event()
        self.is_open = asyncio.Event()

    async def flush(self, log: Log) -> None:
        self.is_reached.set()
        await self.is_open.wait()
        await self._flush(log)

    async def reached(self) -> None:
        async with asyncio.timeout(20):
            await self.is_reached.wait()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> FlushGate:
    gate = FlushGate(Log.flush)
    monkeypatch.setattr(Log, "flush", lambda log: gate.flush(log))
    return gate


async def delivered(collected: Collected, connection: asyncpg.Connection, id: str) -> Batch:
    """Insert a task, and return the batch with it."""
    await insert(connection, id)
    batch = await collected.batch()
    assert keys_of(batch) == [id]
    return batch


async def crash(server: OwnPostgres, gate: FlushGate) -> None:
    await server.kill()
    gate.is_open.set()
    await server.start()


async def is_held(server: OwnPostgres, batch: Batch) -> bool:
    """Return True if the log has the tick of this batch."""
    async with reading(server.url) as log:
        return await log.holds(batch.cursor)


async def test_a_live_client_notices_nothing_of_a_crash_that_takes_its_tick_back(
    database: str, gate: FlushGate
) -> None:
    async with migrated(database) as server, listening(server.url) as collected:
        async with writing(server) as connection:
            await parked(connection)
            lost = await delivered(collected, connection, "before")
            await gate.reached()
        await crash(server, gate)
        async with writing(server) as connection:
            found = await delivered(collected, connection, "after")

        assert not await is_held(server, lost)
        assert await is_held(server, found)
        assert found.follows
        assert found.cursor.place > lost.cursor.place


async def test_a_node_has_its_tick_flushed_right_after_the_delivery(
    database: str, gate: FlushGate
) -> None:
    gate.is_open.set()
    async with migrated(database) as server, listening(server.url) as collected:
        async with writing(server) as connection:
            await parked(connection)
            batch = await delivered(collected, connection, "before")
            await gate.reached()
            async with asyncio.timeout(20):
                while await connection.fetchval(
                    "SELECT pg_current_wal_flush_lsn() < pg_current_wal_insert_lsn()"
                ):
                    await asyncio.sleep(0.01)
        await server.kill()
        await server.start()

        assert await is_held(server, batch)


# Each takes the durability of what it delivers for granted.
NEVER_WAITS = (
    "wal - '0/0' <= flushed AND current_setting('synchronous_standby_names') = ''",
    "true",
)
LOCK = "LOCK TABLE brain.tick_lock IN SHARE UPDATE EXCLUSIVE MODE;"
READS_THE_PLACE_FIRST = (
    (LOCK, f"wal := pg_current_wal_insert_lsn(); {LOCK}"),
    ("(SELECT pg_current_wal_insert_lsn())", "wal"),
)


async def change_without_waiting(
    server: OwnPostgres, collected: Collected, gate: FlushGate, *edits: tuple[str, str]
) -> bool:
    """
    Crash after the delivery of a change whose writer does not wait for the disk.

    It is committed after the node's call has begun. Return True if it survives.
    """
    async with writing(server) as admin, writing(server, WITHOUT_WAITING) as writer:
        await parked(admin)
        await rewrite(admin, "newest", *edits)
        await delivered(collected, admin, "other")
        gate.is_open.clear()
        await admin.execute("BEGIN; LOCK brain.tick_lock IN SHARE UPDATE EXCLUSIVE MODE")
        await delivered_behind(admin, writer, collected)
    await crash(server, gate)
    async with writing(server) as admin:
        return bool(await admin.fetchval("SELECT count(*) FROM tasks WHERE id = 'change'"))


async def delivered_behind(
    admin: asyncpg.Connection, writer: asyncpg.Connection, collected: Collected
) -> None:
    """Insert a task while a node waits for the lock of `admin`, and let it go on."""
    collected.source.look()
    while not await admin.fetchval(
        "SELECT EXISTS (SELECT FROM pg_locks WHERE relation = 'brain.tick_lock'::regclass"
        " AND NOT granted)"
    ):
        await asyncio.sleep(0.01)
    await insert(writer, "change")
    await admin.execute("COMMIT")
    assert keys_of(await collected.batch()) == ["change"]


@pytest.mark.parametrize(
    ("edits", "survives"),
    [((), True), ((NEVER_WAITS,), False), (READS_THE_PLACE_FIRST, False)],
    ids=["as is", "it never waits", "it reads the place before the snapshot"],
)
async def test_nothing_is_delivered_that_a_crash_takes_back(
    database: str, gate: FlushGate, edits: tuple[tuple[str, str], ...], survives: bool
) -> None:
    async with migrated(database) as server, listening(server.url) as collected:
        gate.is_open.set()
        assert await change_without_waiting(server, collected, gate, *edits) is survives


@pytest.fixture
def nothing_is_safe(monkeypatch: pytest.MonkeyPatch) -> None:
    """After its first read, no node learns that something has reached the disk."""

    def flushed(unflushed: Unflushed, position: int | None = None) -> None:
        if unflushed.safe is None:
            original(unflushed, position)

    original = Unflushed.flushed
    monkeypatch.setattr(Unflushed, "flushed", flushed)


TAKE_BACK = "DELETE FROM brain.ticks WHERE id >= $1"
LOSE_EVENT = "DELETE FROM brain.events WHERE key = '[\"two\"]'"


async def cut_anew(connection: asyncpg.Connection, first: Batch, id: str) -> None:
    """Have another node cut what was delivered from `first` on, and a task, into one tick."""
    async with connection.transaction():
        await connection.execute(TAKE_BACK, first.cursor.tick)
        await connection.execute("SELECT set_config('brain.notify', 'off', true)")
        await insert(connection, id)
    await connection.execute("SELECT brain.tick()")


async def reconnect(collected: Collected, connection: asyncpg.Connection) -> None:
    for session in await sessions_of_brain(connection):
        await connection.execute("SELECT pg_terminate_backend($1)", session)
    await reconnected(collected.source, 1)


@pytest.mark.usefixtures("nothing_is_safe")
async def test_what_another_node_has_cut_into_a_tick_with_what_was_delivered_is_yielded_alone(
    database: str, connection: asyncpg.Connection
) -> None:
    async with listening(database) as collected:
        await parked(connection)
        first = await delivered(collected, connection, "one")
        last = await delivered(collected, connection, "two")
        await cut_anew(connection, first, "three")
        await reconnect(collected, connection)
        again = await collected.batch()
        more = await delivered(collected, connection, "four")

    assert keys_of(again) == ["three"]
    assert again.follows and more.follows
    (event,) = again.events
    assert last.cursor.place < event.cursor.place < more.cursor.place


@pytest.mark.usefixtures("nothing_is_safe")
async def test_places_go_forward_also_where_a_page_ends_among_the_empty_ticks(
    database: str, connection: asyncpg.Connection
) -> None:
    await connection.execute("SELECT brain.tick()")
    await connection.execute("SELECT brain.skip_ticks(1021 - max(id)) FROM brain.ticks")
    async with listening(database) as collected:
        await parked(connection)
        batches = [await delivered(collected, connection, id) for id in ("one", "two", "three")]
        await cut_anew(connection, batches[0], "four")
        await reconnect(collected, connection)
        await insert(connection, "five")
        while keys_of(batches[-1]) != ["five"]:
            batches.append(await collected.batch())

    assert batches[0].cursor.tick == 1022  # pages end at 1024
    assert [key for batch in batches for key in keys_of(batch)] == (
        ["one", "two", "three", "four", "five"]
    )
    places = [
        place for batch in batches for place in (*map(place_of, batch.events), batch.cursor.place)
    ]
    assert places == sorted(places)


def place_of(event: Event) -> tuple[int, int]:
    return event.place


@pytest.mark.usefixtures("nothing_is_safe")
async def test_where_an_event_is_lost_that_was_delivered_everything_begins_anew(
    database: str, connection: asyncpg.Connection
) -> None:
    async with listening(database) as collected:
        await parked(connection)
        first = await delivered(collected, connection, "one")
        await delivered(collected, connection, "two")
        async with connection.transaction():
            await connection.execute(TAKE_BACK, first.cursor.tick)
            await connection.execute(LOSE_EVENT)
        await reconnect(collected, connection)
        while (batch := await collected.batch()).follows:
            assert not batch.events

    assert not batch.events
