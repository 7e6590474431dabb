"""Reads the log, and cuts ticks."""

from __future__ import annotations

from collections.abc import Callable

import asyncpg
import orjson

from brain.errors import CursorLost
from brain.message.cursor import Cursor
from brain.message.event import Batch, Event, Operation

PAGE_EVENTS = 1000

# An event of `tasks` with its frame takes 1.7 kB by tracemalloc; its texts have 200 bytes and are
# there twice, parsed and in the frame. Each further encoding in use takes 0.3 kB for its frame.
OBJECT_BYTES = 1300

# A page ends at a tick with a round number, so that clients share pages.
AFTER = """
    SELECT at_tick, at_nonce, id, at, channel, type, operation, key, data, old, recipient
      FROM brain.read($1, $2, $3,
                      least((SELECT max(id) FROM brain.ticks), ($1::bigint / 1024 + 1) * 1024), $4)
"""
# From the last tick before that time, or from the one after which there are few enough events.
RECENT = """
    SELECT id, nonce FROM brain.ticks
     WHERE id >= coalesce(greatest(
         (SELECT t.id FROM brain.ticks t
           WHERE t.at <= clock_timestamp() - make_interval(secs => $1) ORDER BY t.id DESC LIMIT 1),
         (SELECT t.id FROM brain.ticks t
           WHERE pg_snapshot_xmax(t.snapshot) <= (
               SELECT e.transaction_id FROM brain.events e
                ORDER BY e.transaction_id DESC, e.id DESC OFFSET $2 LIMIT 1)
           ORDER BY t.id DESC LIMIT 1)), 0)
     ORDER BY id
"""
# Nothing that is read here is sent before this statement, and with it the tick, is committed.
NEWEST = """
    SELECT at_tick, at_nonce, r.id, at, channel, type, operation, key, data, old, recipient
      FROM brain.tick() t,
           LATERAL brain.read($1, $2, $3, t.id, $4) r
"""

OPERATIONS = {operation.value.encode(): operation for operation in Operation}

LogConnection = asyncpg.Connection | asyncpg.pool.PoolConnectionProxy
"""A connection, or one that a pool lends."""


class Log:
    """
    Cuts ticks and reads batches, over one connection that nothing else uses at the same time.

    Every call raises `TimeoutError` if the server does not answer within `timeout_seconds`.
    """

    def __init__(self, connection: LogConnection, timeout_seconds: float) -> None:
        self._connection = connection
        self._timeout_seconds = timeout_seconds

    def when_closed(self, callback: Callable[[], None]) -> None:
        """Call `callback` when the connection is found to be closed."""
        self._connection.add_termination_listener(lambda _: callback())

    async def tick(self) -> Cursor:
        """Cut a tick if anything is new; everything committed before lies before its end."""
        row = await self._row("SELECT id, nonce FROM brain.tick()")
        return Cursor(row["id"], row["nonce"])

    async def newest(self, cursor: Cursor) -> Batch:
        """
        Cut a tick if anything is new, and return what follows `cursor`.

        At most `PAGE_EVENTS` events, otherwise all there is. Raises `CursorLost` like `after`.
        """
        return await self._read(NEWEST, cursor)

    async def after(self, cursor: Cursor) -> Batch:
        """
        Return a page of what follows `cursor`: at most `PAGE_EVENTS` events.

        There is more as long as the batch's cursor lies before the newest tick.

        Raises `CursorLost` if the log does not reach back to the cursor, or never knew it.
        """
        return await self._read(AFTER, cursor)

    async def recent(self, seconds: float, events: int) -> list[Cursor]:
        """
        Return the ends of the latest ticks, oldest first.

        What follows the first of them goes back about so many seconds, and not much further than so
        many events.
        """
        rows = await self._rows(RECENT, seconds, events)
        return [Cursor(row["id"], row["nonce"]) for row in rows]

    async def holds(self, cursor: Cursor) -> bool:
        """Return True if the log has the tick of `cursor`, with its nonce."""
        row = await self._row(
            "SELECT EXISTS (SELECT FROM brain.ticks WHERE id = $1 AND nonce = $2) AS holds",
            cursor.tick,
            cursor.nonce,
        )
        return bool(row["holds"])

    async def begun_transaction(self) -> int:
        """
        Begin and end a transaction; return its id, below which lie all that began before.

        Not the xmax of a snapshot: that is one above the last transaction which has ended, and
        above it there may be others that have begun.
        """
        row = await self._row("SELECT pg_current_xact_id()::text::bigint AS id")
        return int(row["id"])

    async def oldest_transaction(self) -> int:
        """Return the id below which every transaction has ended."""
        row = await self._row("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS id")
        return int(row["id"])

    async def _read(self, query: str, cursor: Cursor) -> Batch:
        rows = await self._connection.fetch(
            query,
            cursor.tick,
            cursor.nonce,
            cursor.event_id,
            PAGE_EVENTS,
            timeout=self._timeout_seconds,
        )
        end = rows.pop() if rows else None
        if end is None or end["id"] is not None:
            raise CursorLost(f"the log does not hold what follows {cursor}")
        events = tuple([event_in(row) for row in rows])
        for event, row in zip(events, rows, strict=True):
            if event.data is None and event.operation in (Operation.INSERT, Operation.UPDATE):
                await self._load_row(event, row["key"])
        if len(events) == PAGE_EVENTS:
            return Batch(events, events[-1].cursor)
        return Batch(events, Cursor(end["at_tick"], end["at_nonce"]))

    async def _rows(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        return await self._connection.fetch(query, *arguments, timeout=self._timeout_seconds)

    async def _row(self, query: str, *arguments: object) -> asyncpg.Record:
        (row,) = await self._rows(query, *arguments)
        return row

    async def _load_row(self, event: Event, key: str) -> None:
        """Fetch the row of an event that was too large for the log, unless it is gone by now."""
        row: str | None = await self._connection.fetchval(
            "SELECT brain.current_row($1, $2)", event.channel, key, timeout=self._timeout_seconds
        )
        if row is not None:
            event.data = orjson.loads(row)
            event.size_bytes += 2 * len(row)


def event_in(row: asyncpg.Record) -> Event:
    """Return the event in a row of the log."""
    key, data, old = row["key"], row["data"], row["old"]
    return Event(
        cursor=Cursor(row["at_tick"], row["at_nonce"], row["id"]),
        at=row["at"],
        channel=row["channel"],
        operation=OPERATIONS[row["operation"]],
        key=None if key is None else orjson.loads(key),
        data=None if data is None else orjson.loads(data),
        old=None if old is None else orjson.loads(old),
        # Of each text there are two copies: parsed, and in the frame.
        size_bytes=OBJECT_BYTES + 2 * sum([len(text) for text in (key, data, old) if text]),
        type=row["type"],
        recipient=row["recipient"],
    )
