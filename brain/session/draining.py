"""How a process that stops takes leave of its clients: a few at a time, serving the rest."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from brain.session.registry import SessionRegistry

REASON = "this server stops or restarts"
# They come back to another process, which spends a millisecond of processor time on each: half of
# what it can take, so that the clients that it has already do not feel it.
GOODBYES_PER_SECOND = 500
STEP_SECONDS = 0.05


class Draining:
    """Closes all sessions within a time, evenly, so that not all clients come back at once."""

    def __init__(
        self, registry: SessionRegistry, seconds: float, per_second: float = GOODBYES_PER_SECOND
    ) -> None:
        """It takes `seconds` at most, and less if so many `per_second` take less."""
        self._registry = registry
        self._seconds = seconds
        self._per_second = per_second
        self._hurry = asyncio.Event()
        self.has_begun = False
        """From then on this process is not ready for new clients, though it may still have some."""

    def begin(self) -> None:
        self.has_begun = True

    def hurry(self) -> None:
        """Wait for nothing any more, and close all sessions at once."""
        self._hurry.set()

    async def wait(self, seconds: float) -> None:
        """Wait, unless there is need to hurry."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._hurry.wait()

    async def close_sessions(self) -> None:
        """Close all sessions, also those that begin meanwhile; the others go on."""
        deadline = time.monotonic() + self._seconds
        due = 0.0
        while count := self._registry.count:
            seconds = deadline - time.monotonic()
            if self._hurry.is_set() or seconds <= STEP_SECONDS:
                self._registry.close_oldest(count, REASON)
                return
            due += STEP_SECONDS * max(self._per_second, count / seconds)
            self._registry.close_oldest(int(due), REASON)
            due -= int(due)
            await self.wait(STEP_SECONDS)
