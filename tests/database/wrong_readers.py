"""Wrong ways of reading the log and of taking a snapshot."""

from __future__ import annotations

import asyncpg

from brain.database.log import PAGE_EVENTS, Log, NewestBatch, event_in
from brain.message.cursor import Cursor


class LogById(Log):
    """Reads the events after the highest id that it has read."""

    async def newest(self, cursor: Cursor) -> NewestBatch:
        place = cursor.event_id if not cursor.ends_tick else await self._highest(cursor)
        rows = await self._rows(
            """
            SELECT $1::bigint AS at_tick, $2::bigint AS at_nonce, e.* FROM brain.events e
             WHERE e.id > $3 ORDER BY e.id LIMIT $4
            """,
            cursor.tick,
            cursor.nonce,
            place,
            PAGE_EVENTS,
        )
        events = tuple([event_in(row) for row in rows])
        return NewestBatch(events, events[-1].cursor if events else cursor)

    async def _highest(self, cursor: Cursor) -> int:
        row = await self._row(
            """
            SELECT max(e.id) AS id FROM brain.events e, brain.ticks t
             WHERE t.id = $1 AND pg_visible_in_snapshot(e.transaction_id, t.snapshot)
            """,
            cursor.tick,
        )
        return int(row["id"])


async def tick_before(ticking: asyncpg.Connection, reading: asyncpg.Connection) -> Cursor:
    cursor = await tick(ticking)
    await reading.fetchval("SELECT pg_current_snapshot()::text")
    return cursor


async def tick_after(ticking: asyncpg.Connection, reading: asyncpg.Connection) -> Cursor:
    await reading.fetchval("SELECT pg_current_snapshot()::text")
    return await tick(ticking)


async def tick_unlocked(ticking: asyncpg.Connection, reading: asyncpg.Connection) -> Cursor:
    snapshot = await reading.fetchval("SELECT pg_current_snapshot()::text")
    row = await ticking.fetchrow("SELECT * FROM brain.tick_at($1::text::pg_snapshot)", snapshot)
    assert row is not None
    return Cursor(row["id"], row["nonce"])


async def tick(session: asyncpg.Connection) -> Cursor:
    row = await session.fetchrow("SELECT id, nonce FROM brain.tick()")
    assert row is not None
    return Cursor(row["id"], row["nonce"])
