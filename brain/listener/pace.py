"""Whether changes come so fast that polling is cheaper than notifications."""

from __future__ import annotations

import math

MEMORY_SECONDS = 0.25


class Pace:
    """
    Estimates how many changes a second there are, with an exponential decay.

    Changes and not reads: a node that cannot keep up reads less and less often.

    Two thresholds: at a rate between them the node keeps its mode.
    """

    def __init__(self, busy_from: float, calm_below: float) -> None:
        self._busy_from = busy_from
        self._calm_below = calm_below
        self._rate = 0.0
        self._noted_at = 0.0
        self.is_busy = False

    def note(self, *, changes: int, now: float) -> None:
        """Count the changes since the last call, at `now` (monotonic seconds)."""
        self._rate *= math.exp((self._noted_at - now) / MEMORY_SECONDS)
        self._noted_at = now
        self._rate += changes / MEMORY_SECONDS
        self.is_busy = self._rate >= (self._calm_below if self.is_busy else self._busy_from)
