"""Reads watched tables together with the place in the log after which they change."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType

import asyncpg

from brain.database.budget import Locked, TooSlow
from brain.database.memory import NoMemory, Reservation
from brain.database.reader_session import ReaderSession
from brain.database.single_flight import SingleFlight
from brain.database.table import read_rows
from brain.database.table_access import TableAccess, Tables
from brain.message.matching import RowAccess
from brain.message.snapshot import LEAST_BYTES_PER_SECOND, READ_SECONDS, Snapshot

Allowed = Mapping[str, str | None]
"""Per channel the rows that a client may see, as `RowAccess` has them; None: it has no rules."""


class SnapshotReader:
    """Reads whole tables for clients, once for all that need the same at the same time."""

    def __init__(self, access: TableAccess) -> None:
        self._access = access
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
        watched = await self._access.watched(pool, channels)
        tables = {channel: watched[channel] for channel in sorted(watched)}
        allowed = {one: rows[one].allowed if one in rows else None for one in tables}
        key = frozenset(allowed.items())
        snapshot = await self._shared.run(key, partial(self._read, pool, tables, allowed))
        return snapshot if channels == tables.keys() else replace(snapshot, channels=channels)

    async def _read(self, pool: asyncpg.Pool, tables: Tables, allowed: Allowed) -> Snapshot:
        """Read tables, again while one is locked, or while other snapshots take the memory."""
        give_up_at: float | None = None
        while True:
            try:
                return await self._access.run(
                    pool, tables, tables or (None,), partial(self._attempt, pool, tables, allowed)
                )
            except NoMemory as error:
                give_up_at = give_up_at or time.monotonic() + self._access.table_seconds
                # One more, for what the attempt gave back itself.
                await self._access.until_memory(error.releases + 1, give_up_at)

    async def _attempt(
        self, pool: asyncpg.Pool, tables: Tables, allowed: Allowed, seconds: float
    ) -> Snapshot:
        self._access.check_locks(tables)
        reservation = Reservation(self._access.memory)
        try:
            async with self._access.at_tick(pool, tables) as (session, cursor):
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
            own_seconds = min(self._access.table_seconds, left)
            started_at = time.monotonic()
            try:
                rows[channel] = await read_rows(
                    session, channel, own_seconds, reservation, own_rows
                )
            except Locked:
                raise
            except TooSlow:
                if own_seconds == self._access.table_seconds:
                    raise
                took[channel] = time.monotonic() - started_at
                slowest = max(took, key=lambda each: took[each])
                text = f"it took longer than {seconds:g} s, with what was read before"
                raise TooSlow(slowest, text) from None
            took[channel] = time.monotonic() - started_at
        return rows
