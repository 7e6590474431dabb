"""Reads watched tables together with the place in the log after which they change."""

from __future__ import annotations

import asyncio
import logging
from functools import partial

import asyncpg

from brain.database.connection import DISCONNECTIONS, first_line
from brain.database.log import LogConnection, one_line
from brain.database.single_flight import SingleFlight
from brain.errors import LogUnavailable, SnapshotTooLarge
from brain.message.cursor import Cursor
from brain.message.snapshot import Snapshot

PAGE_ROWS = 1000

logger = logging.getLogger(__name__)


class SnapshotReader:
    """
    Reads tables for clients, once for all that need the same at the same time.

    A snapshot of the database is taken while no other tick can be cut, and a tick is cut at it: the
    rows that it shows and the batches after that tick join without a seam, whatever was being
    written meanwhile.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._reading = asyncio.Lock()
        self._shared: SingleFlight[frozenset[str], Snapshot] = SingleFlight("snapshot")

    async def read(self, pool: asyncpg.Pool, channels: frozenset[str]) -> Snapshot:
        """
        Return the rows of the tables that are watched on `channels`.

        Raises `SnapshotTooLarge` and `LogUnavailable`.
        """
        try:
            return await self._shared.run(channels, partial(self._read, pool, channels))
        except DISCONNECTIONS as error:
            logger.warning("cannot read a snapshot for a client: %s", first_line(error))
            raise LogUnavailable("the tables cannot be read at the moment") from error

    async def _read(self, pool: asyncpg.Pool, channels: frozenset[str]) -> Snapshot:
        async with (
            self._reading,  # one at a time: each needs two connections of the few
            pool.acquire() as ticking,
            pool.acquire() as reading,
            reading.transaction(isolation="repeatable_read", readonly=True),
        ):
            cursor = await tick_at_snapshot(ticking, reading)
            return Snapshot(await self._tables(reading, channels), cursor, channels)

    async def _tables(
        self, connection: LogConnection, channels: frozenset[str]
    ) -> dict[str, list[str]]:
        tables: dict[str, list[str]] = {}
        room = self._most_bytes
        for channel in await watched(connection, channels):
            rows = tables[channel] = []
            async for record in connection.cursor(
                "SELECT r FROM brain.rows($1) r", channel, prefetch=PAGE_ROWS
            ):
                room -= len(record["r"])
                if room < 0:
                    raise SnapshotTooLarge(
                        f"the tables take more than {self._most_bytes} bytes, which is as much as"
                        " BRAIN_SNAPSHOT_BYTES allows"
                    )
                rows.append(one_line(record["r"]))
        return tables


async def tick_at_snapshot(ticking: LogConnection, reading: LogConnection) -> Cursor:
    """Cut a tick at the snapshot of the transaction of `reading`, which has run no query yet."""
    async with ticking.transaction():
        await ticking.execute(
            "SET LOCAL synchronous_commit = on; SET LOCAL lock_timeout = '2s';"
            "SET LOCAL idle_in_transaction_session_timeout = '10s'; SELECT brain.tick()"
        )
        snapshot = await reading.fetchval("SELECT pg_current_snapshot()::text")
        row = await ticking.fetchrow(
            "SELECT id, nonce FROM brain.tick_at($1::text::pg_snapshot)", snapshot
        )
    assert row is not None
    return Cursor(row["id"], row["nonce"])


async def watched(connection: LogConnection, channels: frozenset[str]) -> list[str]:
    """Return those of `channels` on which a table is watched."""
    records = await connection.fetch(
        "SELECT channel FROM brain.watched WHERE channel = ANY ($1) ORDER BY channel",
        list(channels),
    )
    return [record["channel"] for record in records]
