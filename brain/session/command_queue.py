"""Commands of a client that have to wait for something, one after the other."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from brain.message.commands import Command

MOST_WAITING = 100


class CommandQueue:
    """Executes commands in order, in a task that ends when there are no more."""

    def __init__(
        self,
        execute: Callable[[Command], Awaitable[None]],
        *,
        on_empty: Callable[[], None],
        on_failure: Callable[[Exception], None],
    ) -> None:
        self._execute = execute
        self._on_empty = on_empty
        self._on_failure = on_failure
        self._waiting: deque[Command] = deque()
        self._task = asyncio.create_task(self._run(), name="commands")

    def add(self, command: Command) -> bool:
        """Add a command; return False if there are too many."""
        self._waiting.append(command)
        return len(self._waiting) <= MOST_WAITING

    def cancel(self) -> None:
        """Execute nothing more; a command may cancel the queue that executes it."""
        self._waiting.clear()
        self._task.cancel()

    async def _run(self) -> None:
        try:
            while self._waiting:
                await self._execute(self._waiting.popleft())
        except Exception as error:
            self._on_failure(error)
        finally:
            self._on_empty()
