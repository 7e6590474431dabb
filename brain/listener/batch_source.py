"""Follows the log, across lost connections."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NamedTuple

from brain.database.backoff import delays
from brain.database.connection import DATABASE_ERRORS, connected, explain, is_lost_link
from brain.database.log import Log
from brain.database.migrations import missing_object
from brain.errors import CursorLost, SchemaGone
from brain.listener.crash_recovery import read_again
from brain.listener.notifications import Notifications
from brain.listener.pace import Pace
from brain.listener.unflushed import Unflushed
from brain.log_events import LOG_FOLLOWED, LOG_STARTED_OVER, LOG_UNREACHABLE
from brain.log_limit import LimitedLog
from brain.message.cursor import Cursor
from brain.message.event import Batch, Event
from brain.problems import Problems
from brain.settings import Settings
from brain.timing import NoteSeconds, ignore, timed

logger = logging.getLogger(__name__)

# How soon to read again while a transaction is open that may have checked for parked nodes before
# this one parked: the longer it has been open already, the later.
SOONEST_SECONDS, LATEST_SECONDS = 0.02, 0.2

# How many recent events are read at the start.
MOST_RECENT = 20_000


# How long something of the schema may be missing before it counts as gone.
MISSING_SECONDS = 2.0


class BatchSourceStatistics(NamedTuple):
    is_live: bool
    """True while the log is being followed."""
    is_busy: bool
    """True while it polls, and writers need not notify."""
    reconnections: int
    cursor: Cursor | None
    notifications: int
    """How often a notification has woken it."""
    read_at: float
    """When the log was read to its end last, by `time.monotonic()`; when it began, before that."""


class BatchSource:
    """
    Turns notifications into batches of events, in order, with nothing missing and nothing twice.

    Following the log live, catching up after a lost connection and starting are one thing: read
    what lies after the cursor. The cursor outlives the connections.
    """

    def __init__(
        self,
        url: str,
        settings: Settings,
        before_gap: Callable[[], Awaitable[None]] | None = None,
        problems: Problems | None = None,
        on_read: NoteSeconds = ignore,
        on_flush: NoteSeconds = ignore,
    ) -> None:
        """
        `before_gap` is awaited before the first batch, and before one that does not follow.

        `on_read` is called for each page of the log, `on_flush` for each wait for the disk.
        """
        self._on_read = on_read
        self._on_flush = on_flush
        self._woken = 0
        self._read_at = time.monotonic()
        self._problems = problems or Problems()
        self._log = LimitedLog(logger)
        self._url = url
        self._settings = settings
        self._before_gap = before_gap
        self._pace = Pace(settings.busy_from_rate, settings.calm_below_rate)
        self._cursor: Cursor | None = None
        self._unflushed = Unflushed()
        self._settles_at: int | None = None
        """
        Only transactions with a lower id may have checked for parked nodes before this one parked.
        """
        self._parked_at = 0.0
        self._checked_at = 0.0
        """When it was found out last whether notifications can arrive."""
        self._was_notified = False
        self._missing_since: float | None = None
        """Since when something that Brain needs is missing in the database."""
        self._live = asyncio.Event()
        self._notifications: Notifications | None = None
        self._has_read = asyncio.Event()
        """Set once the log was read over the present connections."""
        self._connections = 0

    async def live(self) -> None:
        """Return once the database is being followed."""
        await self._live.wait()

    async def comparable(self) -> None:
        """
        Return once the log was read over the present connections.

        Until then its cursor may have the number of a tick that a crash has taken back, and that
        another tick has got: it cannot be compared with a new one.
        """
        await self._has_read.wait()

    def statistics(self) -> BatchSourceStatistics:
        return BatchSourceStatistics(
            is_live=self._live.is_set(),
            is_busy=self._pace.is_busy,
            reconnections=max(0, self._connections - 1),
            cursor=self._cursor,
            notifications=self._woken,
            read_at=self._read_at,
        )

    def look(self) -> None:
        """Read the log at once: a tick was cut, of which nothing notifies."""
        if self._notifications is not None:
            self._notifications.wake()

    async def batches(self) -> AsyncIterator[Batch]:
        """
        Yield every batch from now on, for ever, whatever happens to the connections.

        The first one holds the recent past, which goes back to the first of its `ticks`.
        """
        waiting = delays()
        while True:
            try:
                async with (
                    connected(self._url) as listening,
                    connected(self._url) as reading,
                ):
                    notifications = Notifications(
                        listening, self._settings.database_timeout_seconds
                    )
                    self._notifications = notifications
                    log = Log(reading, self._settings.database_timeout_seconds, self._problems)
                    async for batch in self._follow(notifications, log):
                        yield batch
            except DATABASE_ERRORS as error:
                text = "cannot follow the log, trying again: %s"
                self._log.log(LOG_UNREACHABLE, type(error).__name__, text, explain(error))
                if self._live.is_set():
                    waiting = delays()
            finally:
                self._live.clear()
                self._has_read.clear()
            await asyncio.sleep(next(waiting))

    async def _follow(self, notifications: Notifications, log: Log) -> AsyncIterator[Batch]:
        """Yield batches until the link is lost; try again over the same one if a query fails."""
        log.when_closed(notifications.wake)
        await notifications.listen()
        self._settles_at = None
        self._checked_at = time.monotonic()
        self._was_notified = False
        waiting = None
        while True:
            try:
                async for batch in self._take_turn(notifications, log):
                    yield batch
                waiting = self._missing_since = None
            except DATABASE_ERRORS as error:
                await self._survive(error, notifications, log)
                if waiting is None:
                    waiting = delays()
                else:
                    self._live.clear()
                await asyncio.sleep(next(waiting))

    async def _survive(self, error: Exception, notifications: Notifications, log: Log) -> None:
        """Report an error of a query; raise it if the link is lost, and `SchemaGone`."""
        if is_lost_link(error):
            raise error
        # A query that took too long may be a link that went dead.
        await notifications.start_over()
        await log.oldest_transaction()
        self._settles_at = None
        if missing := await missing_object(notifications.connection):
            self._missing_since = self._missing_since or time.monotonic()
            # A migration or a restored backup may be about to create it.
            if time.monotonic() - self._missing_since >= MISSING_SECONDS:
                raise SchemaGone(f"{missing} is gone from the database: run `brain migrate`")
        self._problems.report("log", f"cannot be read, trying again: {explain(error)}")

    async def _take_turn(self, notifications: Notifications, log: Log) -> AsyncIterator[Batch]:
        """Yield what is new, and wait until it is time to read again."""
        looked_at = time.monotonic()
        changes = 0
        async for batch in self._read(log):
            changes += len(batch.events)
            yield batch
        now = self._read_at = time.monotonic()
        # Notifications without events switch the node to polling, instead of keeping it busy.
        self._pace.note(changes=max(changes, int(self._was_notified)), now=now)
        if not self._has_read.is_set():
            self._has_read.set()
            self._connections += 1
            place = str(self._cursor)
            LOG_FOLLOWED.log(logger, "following the log from %s", place, cursor=place)
        self._live.set()
        if now - self._checked_at >= self._settings.idle_poll_seconds:
            await notifications.check()
            self._checked_at = now
        self._was_notified = await self._rest(notifications, log, looked_at)
        self._woken += self._was_notified

    async def _read(self, log: Log) -> AsyncIterator[Batch]:
        """Yield what was committed since the cursor, and advance it."""
        if self._cursor is None:
            past = await self._recent_past(log)
            if self._before_gap is not None:
                await self._before_gap()
            self._cursor = past.cursor
            yield past
        is_more = True
        while is_more:
            try:
                newest = await timed(log.newest(self._cursor), self._on_read)
            except CursorLost as error:
                async for batch in self._read_on(log, error):
                    self._cursor = batch.cursor
                    yield batch
                continue
            self._unflushed.deliver(newest)
            self._unflushed.flushed(newest.flushed)
            is_more = not newest.cursor.ends_tick
            if newest.cursor != self._cursor:
                self._cursor = newest.cursor
                yield newest
        # Under load the commits of writers flush it, and the next read says so.
        is_under_load = self._pace.is_busy and bool(newest.events)
        if self._unflushed.is_full or (self._unflushed.needs_flush and not is_under_load):
            await timed(log.flush(), self._on_flush)
            self._unflushed.flushed()

    async def _read_on(self, log: Log, error: CursorLost) -> AsyncIterator[Batch]:
        """Yield what follows what the log has lost, or else where it begins anew."""
        assert self._cursor is not None
        try:
            async for batch in read_again(log, self._cursor, self._unflushed):
                yield batch
        except CursorLost:
            newest = await log.tick()
            place = str(newest)
            LOG_STARTED_OVER.log(logger, "starting over at %s: %s", place, error, cursor=place)
            self._unflushed = Unflushed()
            if self._before_gap is not None:
                await self._before_gap()
            yield Batch((), newest, follows=False)

    async def _recent_past(self, log: Log) -> Batch:
        """
        Return the recent events.

        After a restart all clients resume at once, from about the same place: what they missed is
        read once for all of them.
        """
        newest = await log.tick()
        ticks = await log.recent(self._settings.ring_seconds, MOST_RECENT)
        cursor, begin = ticks[0], ticks[0]
        events: deque[Event] = deque()
        held_bytes = 0
        try:
            while cursor.place < newest.place:
                batch = await log.after(cursor)
                events += batch.events
                held_bytes += sum(event.size_bytes for event in batch.events)
                cursor = batch.cursor
                # One transaction may have any number of them.
                while held_bytes > self._settings.ring_bytes or len(events) > 2 * MOST_RECENT:
                    oldest = events.popleft()
                    held_bytes -= oldest.size_bytes
                    begin = oldest.cursor
        except CursorLost:  # it was trimmed a moment ago
            return Batch((), newest)
        return Batch(tuple(events), cursor, ticks=(begin, *ticks[1:]))

    async def _rest(self, notifications: Notifications, log: Log, looked_at: float) -> bool:
        """Wait until it is time to read again; return True if a notification arrived."""
        if self._pace.is_busy:
            if notifications.is_parked:
                await notifications.unpark()
            await self._wait_for_clock(looked_at)
        elif not notifications.is_parked:
            await self._park(notifications, log, looked_at)
        elif self._settles_at is not None:
            if await log.oldest_transaction() >= self._settles_at:
                self._settles_at = None
            else:
                lasted = time.monotonic() - self._parked_at
                return await notifications.wait(
                    min(max(lasted / 10, SOONEST_SECONDS), LATEST_SECONDS)
                )
        else:
            return await notifications.wait(self._settings.idle_poll_seconds)
        return False

    async def _park(self, notifications: Notifications, log: Log, looked_at: float) -> None:
        """Make writers notify; go on polling where that is prevented."""
        await notifications.park()
        if notifications.is_parked:
            # A writer that looked for parked nodes before this moment does not notify. It had a
            # transaction id by then, so it has ended once all older transactions have.
            self._settles_at = await log.begun_transaction()
            self._parked_at = time.monotonic()
        else:
            await self._wait_for_clock(looked_at)

    async def _wait_for_clock(self, looked_at: float) -> None:
        """Wait for the next poll after the read that began at `looked_at`."""
        next_at = looked_at + self._settings.busy_tick_seconds
        await asyncio.sleep(max(0.0, next_at - time.monotonic()))
