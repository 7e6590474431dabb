"""How a process that stops takes leave of its clients: a few at a time, serving the rest."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from brain.session.registry import SessionRegistry

REASON = "this server stops or restarts"
# So many clients, and more, take all of the time; fewer take their share of it, and one is closed
# at once.
MANY_SESSIONS = 10_000
STEP_SECONDS = 0.05


class Draining:
    """Closes all sessions within a time, evenly, so that not all clients come back at once."""

    def __init__(
        self,
        registry: SessionRegistry,
        seconds: float,
        *,
        workers: int = 1,
        many: int = MANY_SESSIONS,
    ) -> None:
        """
        It takes `seconds` for `many` sessions and more, and less for fewer.

        That is for those of all `workers`, which are this process and those that stop with it.
        """
        self._registry = registry
        self._seconds = seconds
        self._workers = workers
        self._many = many
        self._hurry = asyncio.Event()
        self.has_begun = False
        """From then on clients should go elsewhere with their next request."""
        self.is_ready = True
        """False if new ones should not come: no other process takes the place of this one."""

    def begin(self, *, is_replaced: bool = False) -> None:
        self.has_begun = True
        self.is_ready = is_replaced
        if is_replaced:  # it is this one's turn alone
            self._workers = 1

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
        due, many = 0.0, self._many / self._workers
        while count := self._registry.count:
            seconds = deadline - time.monotonic()
            if self._hurry.is_set() or seconds <= STEP_SECONDS:
                self._registry.close_oldest(count, REASON)
                return
            due += STEP_SECONDS * max(many / self._seconds, count / seconds)
            self._registry.close_oldest(int(due), REASON)
            due -= int(due)
            await self.wait(STEP_SECONDS)
