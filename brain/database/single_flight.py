"""One query for all callers that need the same at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from functools import partial
from typing import Any, Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Result = TypeVar("Result")


class SingleFlight(Generic[Key, Result]):
    """Runs one call per key at a time; a caller that is cancelled does not cancel the others."""

    def __init__(self, name: str) -> None:
        """`name` is that of the tasks."""
        self._name = name
        self._running: dict[Key, asyncio.Task[Result]] = {}

    def is_running(self, key: Key) -> bool:
        """Return True while a call with this key runs."""
        return key in self._running

    async def run(self, key: Key, call: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
        """Return, or raise, the outcome of `call`, or of the call with this key that runs."""
        task = self._running.get(key)
        if task is None:
            task = asyncio.create_task(call(), name=self._name)
            self._running[key] = task
            task.add_done_callback(partial(self._finish, key))
        return await asyncio.shield(task)

    async def run_later(self, key: Key, call: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
        """Return what `run` does, of a call that begins after this one."""
        if (task := self._running.get(key)) is not None:
            await asyncio.wait((task,))
        return await self.run(key, call)

    def _finish(self, key: Key, task: asyncio.Task[Result]) -> None:
        del self._running[key]
        if not task.cancelled():
            task.exception()  # retrieved, even if every caller was cancelled
