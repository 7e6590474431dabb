"""Whether changes come so fast that it is cheaper to look at a clock than to be rung for."""

from __future__ import annotations

import math

MEMORY_SECONDS = 0.25


class Pace:
    """
    Estimates how many reads a second find something, with an exponential decay.

    Two thresholds, so that a rate between them does not make the node change its mind all the time.
    """

    def __init__(self, busy_from: float, calm_below: float) -> None:
        self._busy_from = busy_from
        self._calm_below = calm_below
        self._rate = 0.0
        self._noted_at = 0.0
        self.is_busy = False

    def note(self, *, found: bool, now: float) -> None:
        """Take in that a read ended at `now` (monotonic seconds), and whether it found anything."""
        self._rate *= math.exp((self._noted_at - now) / MEMORY_SECONDS)
        self._noted_at = now
        if found:
            self._rate += 1 / MEMORY_SECONDS
        self.is_busy = self._rate >= (self._calm_below if self.is_busy else self._busy_from)
