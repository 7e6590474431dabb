"""What a client has asked for that has to be waited for, one thing after the other."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable

from brain.message.acts import Act

MOST_WAITING = 100

logger = logging.getLogger(__name__)


class Acting:
    """Does what is added, in order, in a task that ends when there is nothing more."""

    def __init__(
        self,
        do: Callable[[Act], Awaitable[None]],
        *,
        when_done: Callable[[], None],
        when_failed: Callable[[], None],
    ) -> None:
        self._do = do
        self._when_done = when_done
        self._when_failed = when_failed
        self._waiting: deque[Act] = deque()
        self._task = asyncio.create_task(self._run(), name="acting")

    def add(self, act: Act) -> bool:
        """Return whether there is room for it."""
        self._waiting.append(act)
        return len(self._waiting) <= MOST_WAITING

    def cancel(self) -> None:
        self._task.cancel()

    async def _run(self) -> None:
        try:
            while self._waiting:
                await self._do(self._waiting.popleft())
        except Exception:
            logger.exception("what a client has asked for cannot be done")
            self._when_failed()
        finally:
            self._when_done()
