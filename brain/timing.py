"""How long something takes."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

Result = TypeVar("Result")
NoteSeconds = Callable[[float], None]
"""Called with the seconds that something has taken, whether it succeeds or fails."""


def ignore(_: float) -> None:
    """Note nothing."""


async def timed(work: Awaitable[Result], note: NoteSeconds) -> Result:
    """Await `work`, and note how long that takes."""
    began_at = time.perf_counter()
    try:
        return await work
    finally:
        note(time.perf_counter() - began_at)


class Durations:
    """
    How often something took how long: plain numbers by upper bounds, which only grow.

    A note costs a fraction of a microsecond, and takes no lock.
    """

    __slots__ = ("bounds", "counts", "total_seconds")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        """In seconds, in ascending order."""
        self.counts = [0] * (len(self.bounds) + 1)
        """Up to each bound and above the one before; the last is above all."""
        self.total_seconds = 0.0

    def note(self, seconds: float) -> None:
        """Count a duration; one by two clocks may seem to be negative, and counts as 0."""
        if seconds < 0.0:
            seconds = 0.0
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total_seconds += seconds
