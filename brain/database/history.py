"""Reads the log for clients that resume, once for all that need the same page."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import asyncpg

from brain.database.connection import DATABASE_ERRORS, explain
from brain.database.log import Log, PageSize
from brain.database.single_flight import SingleFlight
from brain.errors import LogUnavailable
from brain.message.cursor import Cursor, LogStart
from brain.message.event import Batch
from brain.problems import Problems

# How long a client that resumes may wait for its turn to read the log.
ACQUIRE_SECONDS = 30.0

# Limits of the page cache; the newest page always stays.
MOST_PAGES = 16
MOST_BYTES = 32 * 1024 * 1024


class Page:
    """What follows a cursor, for every client that resumes from a place in it."""

    def __init__(self, after: Cursor, batch: Batch) -> None:
        self.size_bytes = sum(event.size_bytes for event in batch.events)
        self._begins = after.place
        self._batch = batch
        self._nonces = {event.tick: event.nonce for event in batch.events}
        self._nonces[after.tick] = after.nonce

    def after(self, cursor: Cursor) -> Batch | None:
        """Return what follows `cursor` in this page; None if it lies outside."""
        if self._nonces.get(cursor.tick) != cursor.nonce:
            return None
        if not self._begins <= cursor.place < self._batch.cursor.place:
            return None
        events = self._batch.events
        first = bisect_right(events, cursor.place, key=lambda event: event.place)
        return Batch(events[first:], self._batch.cursor)


class HistoryReader:
    """
    Reads what follows a cursor, over connections that the pool lends for one query each.

    The last pages are kept, and end at ticks with round numbers, so that most clients that resume
    find their page there. After a restart ten thousand clients cost the database as much as ten.
    """

    def __init__(
        self, pool: asyncpg.Pool, timeout_seconds: float, problems: Problems | None = None
    ) -> None:
        self._pool = pool
        self._problems = problems or Problems()
        self._timeout_seconds = timeout_seconds
        self._shared: SingleFlight[Cursor, Batch] = SingleFlight("history")
        self._starts: SingleFlight[float, LogStart] = SingleFlight("history since")
        self._page_size = PageSize()
        self._pages: deque[Page] = deque()
        """The newest first."""

    async def after(self, cursor: Cursor) -> Batch:
        """
        Return the page that follows `cursor`.

        Raises `CursorLost` and `LogUnavailable`.
        """
        for page in self._pages:
            batch = page.after(cursor)
            if batch is not None:
                return batch
        return await self._shared.run(cursor, partial(self._read, cursor))

    async def holds(self, cursor: Cursor) -> bool:
        """Return True if the log has the tick of `cursor`. Raises `LogUnavailable`."""
        async with self._log() as log:
            return await log.holds(cursor)

    async def since(self, seconds: float) -> LogStart:
        """Return the place to begin at for the last so many seconds. Raises `LogUnavailable`."""
        return await self._starts.run(seconds, partial(self._find_start, seconds))

    async def _find_start(self, seconds: float) -> LogStart:
        async with self._log() as log:
            return await log.since(seconds)

    async def _read(self, cursor: Cursor) -> Batch:
        async with self._log() as log:
            batch = await log.after(cursor)
        if batch.events:
            self._keep(Page(cursor, batch))
        return batch

    def _keep(self, page: Page) -> None:
        self._pages.appendleft(page)
        while len(self._pages) > 1 and (
            len(self._pages) > MOST_PAGES
            or sum(kept.size_bytes for kept in self._pages) > MOST_BYTES
        ):
            self._pages.pop()

    @asynccontextmanager
    async def _log(self) -> AsyncIterator[Log]:
        """Lend a connection for one query."""
        try:
            async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
                yield Log(connection, self._timeout_seconds, self._problems, self._page_size)
        except DATABASE_ERRORS as error:
            self._problems.report("log", f"cannot be read for a client: {explain(error)}")
            raise LogUnavailable("the log cannot be read at the moment") from error
