"""Ends sessions of the server that do not end of themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import NamedTuple

from brain.database.backoff import delays

CLOSE_SECONDS = 2.0


class Backend(NamedTuple):
    """The process of a session. An id alone may be that of another one later."""

    pid: int
    started_at: datetime | None
    """None if the role of the session may not know it."""


class BackendTerminator:
    """
    Owns the tasks that end backends, whatever became of those who used them.

    A failed attempt is repeated: a server that takes no more connections may take one later.
    """

    def __init__(self, end: Callable[[Backend], Awaitable[bool]]) -> None:
        """`end` returns False if the backend may still be there."""
        self._end = end
        self._tasks: set[asyncio.Task[None]] = set()

    def end(self, backend: Backend) -> asyncio.Task[None]:
        """Return the task that is done once the backend is gone."""
        task = asyncio.create_task(self._until_ended(backend), name=f"end backend {backend.pid}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        """Wait for a moment until all backends are gone, and give up those that are not."""
        if not self._tasks:
            return
        _, late = await asyncio.wait(self._tasks, timeout=CLOSE_SECONDS)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    async def _until_ended(self, backend: Backend) -> None:
        for delay in delays():
            if await self._end(backend):
                return
            await asyncio.sleep(delay)
