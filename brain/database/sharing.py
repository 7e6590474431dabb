"""One question to the database for all who ask it at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from functools import partial
from typing import Any, Generic, TypeVar

Question = TypeVar("Question", bound=Hashable)
Answer = TypeVar("Answer")


class Shared(Generic[Question, Answer]):
    """Keeps the questions that are under way; whoever leaves does not take one from the others."""

    def __init__(self, name: str) -> None:
        """`name` is what the tasks that ask are called."""
        self._name = name
        self._under_way: dict[Question, asyncio.Task[Answer]] = {}

    async def answer(
        self, question: Question, ask: Callable[[], Coroutine[Any, Any, Answer]]
    ) -> Answer:
        """Return, or raise, what `ask` comes to, or what came of it when it was asked already."""
        task = self._under_way.get(question)
        if task is None:
            task = asyncio.create_task(ask(), name=self._name)
            self._under_way[question] = task
            task.add_done_callback(partial(self._finish, question))
        return await asyncio.shield(task)

    def _finish(self, question: Question, task: asyncio.Task[Answer]) -> None:
        del self._under_way[question]
        if not task.cancelled():
            task.exception()  # seen, even if everybody who asked has left
