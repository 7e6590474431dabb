"""
A history of changes, and an oracle for it that does not read Brain's bookkeeping.

Every update adds one to a task's progress, and every transaction signs the rows it changes. So the
events of a task must count up without a gap, a replica built from them must equal the table, and
all events with one signature must be in one tick.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg

from brain.database.log import Log
from brain.errors import CursorLost
from brain.message.cursor import Cursor
from brain.message.event import Batch, Event, Operation
from tests.database.log_reading import parsed

NewLog = Callable[[asyncpg.Connection, float], Log]
TickAt = Callable[[asyncpg.Connection, asyncpg.Connection], Awaitable[Cursor]]


class RacedConnection(asyncpg.Connection):
    """A connection that runs other coroutines around each call of fetchval."""

    before: Callable[[], Awaitable[None]] | None = None
    after: Callable[[], Awaitable[None]] | None = None

    async def fetchval(self, *arguments: Any, **named: Any) -> Any:
        if self.before is not None:
            await self.before()
        value = await super().fetchval(*arguments, **named)
        if self.after is not None:
            await self.after()
        return value


class Violation(AssertionError):
    """The log differs from the changes that were made."""


def must(holds: bool, violation: object) -> None:
    if not holds:
        raise Violation(str(violation))


class Replica:
    """The tasks as of the last event that was read."""

    def __init__(self, progress: dict[str, float]) -> None:
        self.progress = progress
        self._tick_of: dict[str, int] = {}
        """The tick of the events with each signature."""

    def apply(self, event: Event) -> None:
        """Apply an event; raise `Violation` unless it follows from the events before it."""
        if event.key is None:
            self.progress.clear()
            return
        id = str(parsed(event.key)[0])
        data, old = parsed(event.data), parsed(event.old)
        known = self.progress.pop(id, None)
        if event.operation is Operation.DELETE:
            must(old["progress"] == known, event)
            return
        expected = 0 if event.operation is Operation.INSERT else known is not None and known + 1
        must((known is None) == (event.operation is Operation.INSERT), event)
        must(data["progress"] == expected, event)
        must((old and old["progress"]) == known, event)
        self.progress[id] = data["progress"]
        tick = self._tick_of.setdefault(data["agent"], event.cursor.tick)
        must(tick == event.cursor.tick, f"{event} belongs to tick {tick}")


class Reader:
    """A node that reads when a test calls it; its cursor may be in the middle of a tick."""

    def __init__(
        self, log: Log, session: asyncpg.Connection, tables: RacedConnection, tick_at: TickAt
    ) -> None:
        self.log = log
        self.session = session
        """The connection of `log`."""
        self.tables = tables
        self.resyncs = 0
        """The number of times the log did not hold the events after the cursor."""
        self.events_read: dict[tuple[int, int], str] = {}
        """The events that were read, by place."""
        self.cuts_apart = False
        """True if it cuts a tick with one call, and reads up to it with another one."""
        self._tick_at = tick_at
        self._cursor = Cursor(0, 0)
        self._replica = Replica({})

    async def begin(self) -> None:
        """Load the tasks, and set the cursor to the place in the log that matches them."""
        async with self.tables.transaction(isolation="repeatable_read", readonly=True):
            self._cursor = await self._tick_at(self.session, self.tables)
            self._replica = Replica(await self._table())

    async def read(self, most: int | None = None, *, cut: bool = True) -> int:
        """Apply the next events, at most `most` of them; return their number."""
        try:
            if cut and self.cuts_apart:
                await self.log.tick()
            is_newest = cut and not self.cuts_apart
            batch = await (self.log.newest if is_newest else self.log.after)(self._cursor)
        except CursorLost:
            self.resyncs += 1
            await self.begin()
            return 0
        return self.take(batch, most)

    def take(self, batch: Batch, most: int | None = None) -> int:
        events = batch.events[:most]
        for event in events:
            place = event.cursor.place
            last = self._cursor.tick, 0 if self._cursor.ends_tick else self._cursor.event_id
            must(place > last and place not in self.events_read, f"{event} after {self._cursor}")
            self._replica.apply(event)
            self._cursor = event.cursor
            self.events_read[place] = f"{event.operation} {event.key} {event.data}"
        if len(events) == len(batch.events):
            self._cursor = batch.cursor
        return len(events)

    async def check(self) -> None:
        """Read to the end while no session writes; raise `Violation` if a change is missing."""
        while await self.read():
            pass
        table, replica = await self._table(), self._replica.progress
        must(table == replica, f"the table holds {table}, the replica {replica}")

    @property
    def cursor(self) -> Cursor:
        return self._cursor

    async def _table(self) -> dict[str, float]:
        rows = await self.tables.fetch("SELECT id, progress FROM tasks")
        return {row["id"]: row["progress"] for row in rows}
