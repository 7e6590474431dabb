"""Reads watched tables together with the place in the log after which they change."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Hashable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from types import MappingProxyType

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
from brain.database.memory import Memory, NoMemory, Reservation
from brain.database.reader_session import ReaderSession, as_reader
from brain.database.single_flight import SingleFlight
from brain.database.table import lock, read_rows
from brain.errors import LogUnavailable
from brain.message.cursor import Cursor
from brain.message.matching import RowAccess
from brain.message.snapshot import LEAST_BYTES_PER_SECOND, READ_SECONDS, Snapshot
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
           )) AS expression,
           CASE WHEN key_columns <@ columns THEN key_columns END AS key_columns
      FROM brain.watched w
     WHERE CASE WHEN brain.repaired(channel) = channel
                THEN convert_to(channel, 'UTF8') = ANY ($1::bytea[]) END
"""
Tables = Mapping[str, str | None]
"""Per channel its table and partitions, as in a FROM clause; None if it was dropped."""
Keys = Mapping[str, Sequence[str] | None]
"""Per channel the columns of the primary key; None if not all of them are watched."""
Allowed = Mapping[str, str | None]
"""Per channel the rows that a client may see, as `RowAccess` has them; None: it has no rules."""


class SnapshotReader:
    """
    Reads tables for clients, once for all that need the same at the same time.

    A snapshot of the database is taken while no other tick can be cut, and a tick is cut at it: the
    rows that it shows and the batches after that tick join without a seam, whatever was being
    written meanwhile.

    The tables are locked before that, in the mode in which they are read. So little waits for the
    lock of a user while no tick can be cut; and a table that is rewritten meanwhile (TRUNCATE,
    ALTER TABLE) would seem empty to an older snapshot.
    """

    def __init__(
        self, most_bytes: int, table_seconds: float = 5.0, problems: Problems | None = None
    ) -> None:
        """`most_bytes` of memory are for all snapshots together; a table has `table_seconds`."""
        self._memory = Memory(most_bytes)
        self._table_seconds = table_seconds
        self._problems = problems or Problems()
        self._lanes = Lanes(ALL_TABLES * table_seconds, WAIT_TABLES * table_seconds)
        self._ticking = asyncio.Lock()
        self._trying_locks = asyncio.Lock()
        self._watched: SingleFlight[frozenset[str], tuple[Tables, Keys]] = SingleFlight(
            "watched tables"
        )
        self._locked: SingleFlight[str | None, bool] = SingleFlight("locked table")
        self._shared: SingleFlight[frozenset[tuple[str, str | None]], Snapshot] = SingleFlight(
            "snapshot"
        )

    async def read(
        self,
        pool: asyncpg.Pool,
        channels: frozenset[str],
        rows: Mapping[str, RowAccess] = MappingProxyType({}),
    ) -> Snapshot:
        """
        Return the rows of the tables that are watched on `channels`.

        Of those with row rules, the ones that `rows` allows: none if it does not name the channel.

        Raises `SnapshotTooLarge` and `LogUnavailable`.
        """
        try:
            watched, keys = await self._watched.run_later(
                channels, partial(self._tables, pool, channels)
            )
        except DATABASE_ERRORS as error:
            raise self._disconnected(error) from error
        tables = {channel: watched[channel] for channel in sorted(watched)}
        allowed = {one: rows[one].allowed if one in rows else None for one in tables}
        key = frozenset(allowed.items())
        snapshot = await self._shared.run(key, partial(self._read, pool, tables, allowed, keys))
        return snapshot if channels == tables.keys() else replace(snapshot, channels=channels)

    async def _tables(self, pool: asyncpg.Pool, channels: frozenset[str]) -> tuple[Tables, Keys]:
        names = [channel.encode(errors="surrogatepass") for channel in channels]
        records = await pool.fetch(WATCHED, names, timeout=self._table_seconds)
        tables = {record["channel"]: record["expression"] for record in records}
        return tables, {record["channel"]: record["key_columns"] for record in records}

    async def _read(
        self, pool: asyncpg.Pool, tables: Tables, allowed: Allowed, keys: Keys
    ) -> Snapshot:
        """Read tables, again while one is locked, or while other snapshots take the memory."""
        give_up_at: float | None = None
        try:
            while True:
                try:
                    snapshot = await self._lanes.run(
                        tables or (None,),
                        partial(self._attempt, pool, tables, allowed),
                        until_unlocked=partial(self._until_unlocked, pool, tables),
                    )
                    return replace(snapshot, keys=keys)
                except NoMemory as error:
                    give_up_at = give_up_at or time.monotonic() + self._table_seconds
                    # One more, for what the attempt gave back itself.
                    await self._until_memory(error.releases + 1, give_up_at)
        except Locked as locked:
            it_is_locked = TooSlow(locked.name, "it is locked")
            raise self._unreadable(str(locked.name), it_is_locked) from locked
        except (QueryFailed, TooSlow) as error:
            raise self._unreadable(str(error.name or "the log"), error) from error
        except DATABASE_ERRORS as error:
            raise self._disconnected(error) from error

    async def _attempt(
        self, pool: asyncpg.Pool, tables: Tables, allowed: Allowed, seconds: float
    ) -> Snapshot:
        for channel, table in tables.items():
            if self._locked.is_running(table):
                raise Locked(channel)
        reservation = Reservation(self._memory)
        try:
            async with AsyncExitStack() as reading:
                # One that has a connection already never waits for another.
                async with self._ticking, pool.acquire(timeout=self._table_seconds) as ticking:
                    connection = await reading.enter_async_context(
                        pool.acquire(timeout=self._table_seconds)
                    )
                    session = await reading.enter_async_context(
                        as_reader(connection, isolation="repeatable_read", readonly=True)
                    )
                    cursor = await tick_at_snapshot(ticking, connection, tables)
                rows = await self._rows(session, allowed, seconds, reservation)
        except BaseException:
            reservation.release()
            raise
        return Snapshot(
            rows,
            cursor,
            frozenset(tables),
            reservation=reservation,
            read_seconds=READ_SECONDS + reservation.bytes / LEAST_BYTES_PER_SECOND,
        )

    async def _rows(
        self,
        session: ReaderSession,
        allowed: Allowed,
        seconds: float,
        reservation: Reservation,
    ) -> dict[str, list[str]]:
        """Read tables, each in its time, and all in so many seconds."""
        rows: dict[str, list[str]] = {}
        took: dict[str, float] = {}
        begun_at = time.monotonic()
        for channel, own_rows in allowed.items():
            left = begun_at + seconds - time.monotonic()
            own_seconds = min(self._table_seconds, left)
            started_at = time.monotonic()
            try:
                rows[channel] = await read_rows(
                    session, channel, own_seconds, reservation, own_rows
                )
            except Locked:
                raise
            except TooSlow:
                if own_seconds == self._table_seconds:
                    raise
                took[channel] = time.monotonic() - started_at
                slowest = max(took, key=lambda each: took[each])
                text = f"it took longer than {seconds:g} s, with what was read before"
                raise TooSlow(slowest, text) from None
            took[channel] = time.monotonic() - started_at
        return rows

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
                    pool.acquire(timeout=self._table_seconds) as connection,
                    connection.transaction(),
                ):
                    await lock(connection, channel, table)
                return True
            except Locked:
                pass
        return False

    async def _until_memory(self, releases: int, give_up_at: float) -> None:
        try:
            async with asyncio.timeout(give_up_at - time.monotonic()):
                await asyncio.sleep(0)  # it may be too late already
                await self._memory.released(releases)
        except TimeoutError:
            text = "other snapshots take the memory that BRAIN_SNAPSHOT_BYTES allows"
            self._problems.report("snapshots", text)
            raise LogUnavailable(f"{text}, try again later") from None

    def _unreadable(self, channel: str, error: BaseException) -> LogUnavailable:
        text = f"{channel} cannot be read: {reason(error)}"
        self._problems.report(f"snapshot {channel}", text, channel=channel)
        return unavailable(channel, error)

    def _disconnected(self, error: BaseException) -> LogUnavailable:
        self._problems.report("snapshots", f"tables cannot be read: {explain(error)}")
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
