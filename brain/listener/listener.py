"""Follows the log across lost connections."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from typing import NamedTuple

from brain.database.connection import DISCONNECTIONS, connected, told
from brain.database.log import PAGE_EVENTS, Log
from brain.errors import CursorLost
from brain.listener.backoff import delays
from brain.listener.bell import Bell
from brain.listener.pace import Pace
from brain.message.cursor import Cursor
from brain.message.event import Batch, Event
from brain.settings import Settings

logger = logging.getLogger(__name__)

# How soon to look again while a transaction is open that may have looked before the node parked:
# the longer that has lasted already, the later.
SOONEST_SECONDS, LATEST_SECONDS = 0.02, 0.2

# How many events of the past are read at the start.
MOST_RECENT = 20_000


class ListenerStatistics(NamedTuple):
    is_live: bool
    """Whether the database is being followed right now."""
    is_busy: bool
    """Whether it looks by the clock, writers being spared the bell."""
    reconnections: int
    cursor: Cursor | None


class Listener:
    """
    Turns a bell into batches of events, in order, with nothing missing and nothing twice.

    Following the log live, catching up after a lost connection and starting are one thing: read
    what lies after the cursor. The cursor outlives the connections.
    """

    def __init__(self, url: str, settings: Settings) -> None:
        self._url = url
        self._settings = settings
        self._pace = Pace(settings.busy_from_rate, settings.calm_below_rate)
        self._cursor: Cursor | None = None
        self._settles_at: int | None = None
        """The transaction before which all began that looked before the node parked."""
        self._parked_at = 0.0
        self._live = asyncio.Event()
        self._connections = 0

    async def live(self) -> None:
        """Return once the database is being followed."""
        await self._live.wait()

    def statistics(self) -> ListenerStatistics:
        return ListenerStatistics(
            is_live=self._live.is_set(),
            is_busy=self._pace.is_busy,
            reconnections=max(0, self._connections - 1),
            cursor=self._cursor,
        )

    async def batches(self) -> AsyncIterator[Batch]:
        """
        Yield every batch from now on, for ever, whatever happens to the connections.

        Before them comes one with the recent past, which goes back to the first of its `ticks`.
        """
        waiting = delays()
        while True:
            try:
                async with (
                    connected(self._url) as listening,
                    connected(self._url) as reading,
                ):
                    bell = Bell(listening, self._settings.database_timeout_seconds)
                    log = Log(reading, self._settings.database_timeout_seconds)
                    async for batch in self._follow(bell, log):
                        yield batch
            except DISCONNECTIONS as error:
                logger.warning("lost the database, trying again: %s", told(error))
                if self._live.is_set():
                    waiting = delays()
            finally:
                self._live.clear()
            await asyncio.sleep(next(waiting))

    async def _follow(self, bell: Bell, log: Log) -> AsyncIterator[Batch]:
        log.when_closed(bell.wake)
        await bell.listen()
        self._settles_at = None
        checked_at = time.monotonic()
        was_rung = False
        while True:
            looked_at = time.monotonic()
            changes = 0
            async for batch in self._read(log):
                changes += len(batch.events)
                yield batch
            now = time.monotonic()
            # Whoever rings for nothing makes the node deaf for a while, instead of busy for him.
            self._pace.note(changes=max(changes, int(was_rung)), now=now)
            if not self._live.is_set():
                self._connections += 1
                self._live.set()
                logger.info("following the log from %s", self._cursor)
            if now - checked_at >= self._settings.idle_poll_seconds:
                await bell.check()
                checked_at = now
            was_rung = await self._rest(bell, log, looked_at)

    async def _read(self, log: Log) -> AsyncIterator[Batch]:
        """Yield what was committed since the cursor, and advance it."""
        if self._cursor is None:
            past = await self._recent_past(log)
            self._cursor = past.cursor
            yield past
        is_more = True
        while is_more:
            try:
                batch = await log.newest(self._cursor)
            except CursorLost as error:
                newest = await log.tick()
                logger.warning("starting over at %s: %s", newest, error)
                batch = Batch((), newest, follows=False)
            is_more = len(batch.events) == PAGE_EVENTS
            if batch.cursor != self._cursor:
                self._cursor = batch.cursor
                yield batch

    async def _recent_past(self, log: Log) -> Batch:
        """
        Return what has happened lately, and where it ends.

        After a restart all clients come back at once, from about where it was stopped: what they
        missed is then read once, and not by each.
        """
        newest = await log.tick()
        ticks = await log.recent(self._settings.ring_seconds, MOST_RECENT)
        cursor = ticks[0]
        events: list[Event] = []
        try:
            while cursor.place < newest.place:
                batch = await log.after(cursor)
                events += batch.events
                cursor = batch.cursor
                if len(events) > 2 * MOST_RECENT:  # in one transaction
                    return Batch((), newest)
        except CursorLost:  # it was forgotten just now
            return Batch((), newest)
        return Batch(tuple(events), cursor, ticks=tuple(ticks))

    async def _rest(self, bell: Bell, log: Log, looked_at: float) -> bool:
        """Wait until it is worth looking again; return whether that was said by the bell."""
        if self._pace.is_busy:
            if bell.is_parked:
                await bell.unpark()
            await self._wait_for_clock(looked_at)
        elif not bell.is_parked:
            await self._park(bell, log, looked_at)
        elif self._settles_at is not None:
            if await log.oldest_transaction() >= self._settles_at:
                self._settles_at = None
            else:
                lasted = time.monotonic() - self._parked_at
                return await bell.wait(min(max(lasted / 10, SOONEST_SECONDS), LATEST_SECONDS))
        else:
            return await bell.wait(self._settings.idle_poll_seconds)
        return False

    async def _park(self, bell: Bell, log: Log, looked_at: float) -> None:
        """Have writers ring; where that is prevented, go on looking by the clock."""
        await bell.park()
        if bell.is_parked:
            # A writer that looked for sleepers before this moment does not ring. It had an id by
            # then, so it is over once all that began before this one are.
            self._settles_at = await log.begun_transaction()
            self._parked_at = time.monotonic()
        else:
            await self._wait_for_clock(looked_at)

    async def _wait_for_clock(self, looked_at: float) -> None:
        """Wait until it is time for the look after the one that began at `looked_at`."""
        next_at = looked_at + self._settings.busy_tick_seconds
        await asyncio.sleep(max(0.0, next_at - time.monotonic()))
