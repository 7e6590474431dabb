"""The reading side of the log."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import asyncpg
import orjson

from brain.errors import CursorLost
from brain.message.cursor import Cursor
from brain.message.event import Batch, Event, Operation

PAGE_EVENTS = 1000

# An event of `tasks` with its rendering takes 1.5 kB by tracemalloc; its texts have 200 bytes and
# are there twice, parsed and rendered.
OBJECT_BYTES = 1100


Lent = asyncpg.Connection | asyncpg.pool.PoolConnectionProxy
"""A connection of one's own, or one that a pool lends for a while."""


class Log:
    """
    Cuts ticks and reads batches, over one connection that nothing else uses meanwhile.

    Every call raises `TimeoutError` if the server does not answer within `timeout_seconds`.
    """

    def __init__(self, connection: Lent, timeout_seconds: float) -> None:
        self._connection = connection
        self._timeout_seconds = timeout_seconds

    def when_closed(self, callback: Callable[[], None]) -> None:
        """Have `callback` called when the connection is found to be closed."""
        self._connection.add_termination_listener(lambda _: callback())

    async def tick(self) -> Cursor:
        """Cut a tick if anything is new; all that was committed before lies before its end."""
        row = await self._row("SELECT id, nonce FROM brain.tick()")
        return Cursor(row["id"], row["nonce"])

    async def after(self, cursor: Cursor) -> Batch:
        """
        Return what follows `cursor`, up to the end of a tick but at most `PAGE_EVENTS` events.

        Raises `CursorLost` if the log does not reach back to the cursor, or never knew it.
        """
        tick, after = (cursor.tick + 1, 0) if cursor.ends_tick else (cursor.tick, cursor.event_id)
        rows = await self._rows(
            "SELECT id, at, channel, operation, key, data, old FROM brain.batch($1, $2, $3)",
            tick,
            after,
            PAGE_EVENTS,
        )
        # Looked up after the read: TRUNCATE empties a slot under the eyes of older snapshots, and
        # takes the ticks with it.
        former, nonce = await self._nonces(tick)
        known = former if cursor.ends_tick else nonce
        if former is None or nonce is None or known != cursor.nonce:
            raise CursorLost(f"the log does not hold what follows {cursor}")
        events = tuple([await self._event(row, tick, nonce) for row in rows])
        is_whole = len(rows) < PAGE_EVENTS
        return Batch(events, Cursor(tick, nonce) if is_whole else events[-1].cursor)

    async def holds(self, cursor: Cursor) -> bool:
        """Whether the log has the tick of `cursor`, with its nonce."""
        _, nonce = await self._nonces(cursor.tick)
        return nonce == cursor.nonce

    async def begun_transaction(self) -> int:
        """
        Begin and end a transaction; return its id, below which lie all that began before.

        Not the xmax of a snapshot: that is one above the last transaction which has ended, and
        above it there may be others that have begun.
        """
        row = await self._row("SELECT pg_current_xact_id()::text::bigint AS id")
        return int(row["id"])

    async def oldest_transaction(self) -> int:
        """Return the id below which every transaction is over."""
        row = await self._row("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS id")
        return int(row["id"])

    async def _nonces(self, tick: int) -> tuple[int | None, int | None]:
        """Return the nonces of the tick before `tick` and of `tick`; None for one that is gone."""
        rows = await self._rows(
            "SELECT id, nonce FROM brain.ticks WHERE id BETWEEN $1 - 1 AND $1", tick
        )
        nonces = {row["id"]: row["nonce"] for row in rows}
        return nonces.get(tick - 1), nonces.get(tick)

    async def _rows(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        return await self._connection.fetch(query, *arguments, timeout=self._timeout_seconds)

    async def _row(self, query: str) -> asyncpg.Record:
        (row,) = await self._rows(query)
        return row

    async def _event(self, row: asyncpg.Record, tick: int, nonce: int) -> Event:
        operation = Operation(row["operation"].decode())
        data = row["data"]
        if data is None and operation in (Operation.INSERT, Operation.UPDATE):
            data = await self._row_as_it_is(row["channel"], row["key"])
        return Event(
            cursor=Cursor(tick, nonce, row["id"]),
            at=row["at"],
            channel=row["channel"],
            operation=operation,
            key=parsed(row["key"]),
            data=parsed(data),
            old=parsed(row["old"]),
            size_bytes=OBJECT_BYTES
            + 2 * sum(len(text) for text in (row["key"], data, row["old"]) if text),
        )

    async def _row_as_it_is(self, channel: str, key: str) -> str | None:
        """Fetch a row that was too large for the log; None if it is gone meanwhile."""
        row: str | None = await self._connection.fetchval(
            "SELECT brain.current_row($1, $2)", channel, key, timeout=self._timeout_seconds
        )
        return row


def parsed(text: str | None) -> Any:
    return None if text is None else orjson.loads(text)
