"""Opens transactions in which watched tables are read at a place in the log."""

from __future__ import annotations

import asyncio
import time
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Hashable,
    Iterable,
    Mapping,
)
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from types import MappingProxyType
from typing import TypeVar

import asyncpg

from brain.database.budget import (
    LOCK_SECONDS,
    PAUSE_SECONDS,
    Lanes,
    Locked,
    QueryFailed,
    TooSlow,
    reason,
    unavailable,
)
from brain.database.connection import DATABASE_ERRORS, explain
from brain.database.log import LogConnection
from brain.database.memory import Memory
from brain.database.reader_session import ReaderSession, as_reader
from brain.database.single_flight import SingleFlight
from brain.database.table import lock
from brain.errors import LogUnavailable
from brain.message.cursor import Cursor
from brain.problems import Problems

# How many times as long as one table all tables of a snapshot may take, and how many times as long
# it waits until it may be read.
ALL_TABLES = 3
WAIT_TABLES = 6

# A name without an equivalent in UTF-8 hides no other; no client can ask for such a channel. Names
# are compared as UTF-8: those that a client asks for may have no equivalent in the database.
WATCHED = """
    SELECT channel, brain.repaired((
               SELECT string_agg('ONLY ' || c.oid::regclass::text, ', ')
                 FROM pg_class c WHERE c.oid IN (SELECT brain.partition_tree(w.relation))
           )) AS expression
      FROM brain.watched w
     WHERE CASE WHEN brain.repaired(channel) = channel
                THEN convert_to(channel, 'UTF8') = ANY ($1::bytea[]) END
"""
Tables = Mapping[str, str | None]
"""Per channel its table and partitions, as in a FROM clause; None if it was dropped."""

Outcome = TypeVar("Outcome")


class TableAccess:
    """
    What all that read watched tables share: memory, places to run, and the lock of the ticks.

    A snapshot of the database is taken while no other tick can be cut, and a tick is cut at it: the
    rows that it shows and the batches after that tick join without a seam, whatever was being
    written meanwhile.

    The tables are locked before that, in the mode in which they are read. So little waits for the
    lock of a user while no tick can be cut; and a table that is rewritten meanwhile (TRUNCATE,
    ALTER TABLE) would seem empty to an older snapshot.
    """

    def __init__(
        self,
        most_bytes: int,
        table_seconds: float = 5.0,
        problems: Problems | None = None,
        on_tick: Callable[[], None] | None = None,
        comparable: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """
        `most_bytes` of memory are for all rows together; a table has `table_seconds`.

        `on_tick` is called after a tick was cut, of which nothing notifies the batch source;
        `comparable` is awaited before a tick is cut that will be compared with what it has read.
        """
        self.memory = Memory(most_bytes)
        self.table_seconds = table_seconds
        self.problems = problems or Problems()
        self.lanes = Lanes(ALL_TABLES * table_seconds, WAIT_TABLES * table_seconds)
        self._on_tick = on_tick
        self._comparable = comparable
        self._ticking = asyncio.Lock()
        self._trying_locks = asyncio.Lock()
        self._watched: SingleFlight[frozenset[str], Tables] = SingleFlight("watched tables")
        self._locked: SingleFlight[str | None, bool] = SingleFlight("locked table")

    async def watched(self, pool: asyncpg.Pool, channels: frozenset[str]) -> Tables:
        """Return the tables that are watched on channels now. Raises `LogUnavailable`."""
        try:
            return await self._watched.run_later(channels, partial(self._query, pool, channels))
        except DATABASE_ERRORS as error:
            raise self.disconnected(error) from error

    async def _query(self, pool: asyncpg.Pool, channels: frozenset[str]) -> Tables:
        names = [channel.encode(errors="surrogatepass") for channel in channels]
        records = await pool.fetch(WATCHED, names, timeout=self.table_seconds)
        return {record["channel"]: record["expression"] for record in records}

    async def run(
        self,
        pool: asyncpg.Pool,
        tables: Tables,
        names: Iterable[Hashable],
        attempt: Callable[[float], Awaitable[Outcome]],
        *,
        channel: str | None = None,
    ) -> Outcome:
        """
        Return the outcome of an attempt, in a place that is free; again while a table is locked.

        `attempt` gets the seconds that it has, and raises what `at_tick` raises, and `TooSlow` with
        one of `names`; `channel` says what those are of, if not of the channel of that name.

        Raises `LogUnavailable`.
        """
        try:
            return await self.lanes.run(
                names, attempt, until_unlocked=partial(self._until_unlocked, pool, tables)
            )
        except Locked as locked:
            it_is_locked = TooSlow(locked.name, "it is locked")
            raise self.unreadable(str(locked.name), it_is_locked) from locked
        except (QueryFailed, TooSlow) as error:
            raise self.unreadable(channel or str(error.name or "the log"), error) from error
        except DATABASE_ERRORS as error:
            raise self.disconnected(error) from error

    def check_locks(self, tables: Tables) -> None:
        """Raise `Locked` if a table is known to be locked."""
        for channel, table in tables.items():
            if self._locked.is_running(table):
                raise Locked(channel)

    @asynccontextmanager
    async def at_tick(
        self, pool: asyncpg.Pool, tables: Tables
    ) -> AsyncIterator[tuple[ReaderSession, Cursor]]:
        """Open a transaction at the snapshot of a tick. Raises `Locked`, `QueryFailed`."""
        if self._comparable is not None:
            async with asyncio.timeout(self.table_seconds):
                await self._comparable()
        async with AsyncExitStack() as reading:
            # One that has a connection already never waits for another.
            async with self._ticking, pool.acquire(timeout=self.table_seconds) as ticking:
                connection = await reading.enter_async_context(
                    pool.acquire(timeout=self.table_seconds)
                )
                session = await reading.enter_async_context(
                    as_reader(connection, isolation="repeatable_read", readonly=True)
                )
                cursor = await tick_at_snapshot(ticking, connection, tables)
            if self._on_tick is not None:
                self._on_tick()
            yield session, cursor

    async def _until_unlocked(self, pool: asyncpg.Pool, tables: Tables, channel: Hashable) -> bool:
        """Return True once the table of a channel is not locked, and False if it still is."""
        table = tables[str(channel)]
        return await self._locked.run(table, partial(self._try_lock, pool, str(channel), table))

    async def _try_lock(self, pool: asyncpg.Pool, channel: str, table: str | None) -> bool:
        """Try for a while; one connection tries all tables that are locked, each for a moment."""
        give_up_at = time.monotonic() + LOCK_SECONDS
        while time.monotonic() < give_up_at:
            await asyncio.sleep(PAUSE_SECONDS)
            try:
                async with (
                    self._trying_locks,
                    pool.acquire(timeout=self.table_seconds) as connection,
                    connection.transaction(),
                ):
                    await lock(connection, channel, table)
                return True
            except Locked:
                pass
        return False

    async def until_memory(self, releases: int, give_up_at: float) -> None:
        """Wait until more than so many times memory was given back. Raises `LogUnavailable`."""
        try:
            async with asyncio.timeout(give_up_at - time.monotonic()):
                await asyncio.sleep(0)  # it may be too late already
                await self.memory.released(releases)
        except TimeoutError:
            text = "other snapshots take the memory that BRAIN_SNAPSHOT_BYTES allows"
            self.problems.report("snapshots", text)
            raise LogUnavailable(f"{text}, try again later") from None

    def unreadable(self, channel: str, error: BaseException) -> LogUnavailable:
        """Report that a table cannot be read; return the error for its clients."""
        text = f"{channel} cannot be read: {reason(error)}"
        self.problems.report(f"snapshot {channel}", text, channel=channel)
        return unavailable(channel, error)

    def disconnected(self, error: BaseException) -> LogUnavailable:
        """Report that no table can be read; return the error for clients."""
        self.problems.report("snapshots", f"tables cannot be read: {explain(error)}")
        return LogUnavailable("the tables cannot be read at the moment")


async def tick_at_snapshot(
    ticking: LogConnection, reading: LogConnection, tables: Tables = MappingProxyType({})
) -> Cursor:
    """
    Cut a tick at the snapshot of the transaction of `reading`, which has run no query yet.

    To lock a table is to take a snapshot, so `ticking` locks them before, and until `reading` has.
    Raises `Locked`, and `QueryFailed` for a table that was dropped.
    """
    async with ticking.transaction():
        for channel, table in tables.items():
            await lock(ticking, channel, table)
        await ticking.execute(
            "SET LOCAL synchronous_commit = on; SET LOCAL lock_timeout = '2s';"
            "SET LOCAL idle_in_transaction_session_timeout = '10s'; SELECT brain.tick()"
        )
        snapshot = await reading.fetchval("SELECT pg_current_snapshot()::text")
        for channel, table in tables.items():
            await lock(reading, channel, table)
        row = await ticking.fetchrow(
            "SELECT id, nonce FROM brain.tick_at($1::text::pg_snapshot)", snapshot
        )
    assert row is not None
    return Cursor(row["id"], row["nonce"])
