"""A check: a question, and the coroutine that answers it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from brain.doctor.examination import Examination
from brain.doctor.finding import Finding

Answer = Callable[[Examination], Awaitable[Finding]]
MOST_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Check:
    """One check; `id` is stable: programs, docs and tests know it."""

    id: str
    answer: Answer
    most_seconds: float


def check(id: str, *, most_seconds: float = MOST_SECONDS) -> Callable[[Answer], Check]:
    """Make a check of a coroutine function, which gets at most so many seconds."""
    return lambda answer: Check(id, answer, most_seconds)
