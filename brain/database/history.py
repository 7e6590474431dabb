"""Reads the log for clients that come back, once for all that come back to the same page."""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import asyncpg

from brain.database.connection import DISCONNECTIONS, told
from brain.database.log import Log
from brain.database.sharing import Shared
from brain.errors import LogUnreachable
from brain.message.cursor import Cursor
from brain.message.event import Batch

logger = logging.getLogger(__name__)

# How long a client that comes back may wait for its turn to read the log.
ACQUIRE_SECONDS = 30.0

# How much of them is kept, whatever is in them; at least the last one.
MOST_PAGES = 16
MOST_BYTES = 32 * 1024 * 1024


class Page:
    """What followed a cursor, for whoever comes back to a place in it."""

    def __init__(self, after: Cursor, batch: Batch) -> None:
        self.size_bytes = sum(event.size_bytes for event in batch.events)
        self._begins = after.place
        self._batch = batch
        self._nonces = {event.cursor.tick: event.cursor.nonce for event in batch.events}
        self._nonces[after.tick] = after.nonce

    def after(self, cursor: Cursor) -> Batch | None:
        """Return what follows `cursor` here; None if it is no place in this page."""
        if self._nonces.get(cursor.tick) != cursor.nonce:
            return None
        if not self._begins <= cursor.place < self._batch.cursor.place:
            return None
        events = self._batch.events
        first = bisect_right(events, cursor.place, key=lambda event: event.cursor.place)
        return Batch(events[first:], self._batch.cursor)


class HistoryReader:
    """
    Answers what followed a cursor, over a few connections that are lent for one question each.

    The last pages are kept, and end where ticks of certain numbers do: of those who come back, few
    ask for what has not been asked for yet. After a restart the database is asked as much for ten
    clients as for ten thousand.
    """

    def __init__(self, pool: asyncpg.Pool, timeout_seconds: float) -> None:
        self._pool = pool
        self._timeout_seconds = timeout_seconds
        self._shared: Shared[Cursor, Batch] = Shared("history")
        self._pages: deque[Page] = deque()
        """The newest first."""

    async def after(self, cursor: Cursor) -> Batch:
        """
        Return what follows `cursor`, up to somewhere.

        Raises `CursorLost` and `LogUnreachable`.
        """
        for page in self._pages:
            batch = page.after(cursor)
            if batch is not None:
                return batch
        return await self._shared.answer(cursor, partial(self._read, cursor))

    async def holds(self, cursor: Cursor) -> bool:
        """Whether the log has the tick of `cursor`, with its nonce. Raises `LogUnreachable`."""
        async with self._log() as log:
            return await log.holds(cursor)

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
        """Borrow the log for one question."""
        try:
            async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
                yield Log(connection, self._timeout_seconds)
        except DISCONNECTIONS as error:
            logger.warning("cannot read the log for a client: %s", told(error))
            raise LogUnreachable("the log cannot be read at the moment") from error
