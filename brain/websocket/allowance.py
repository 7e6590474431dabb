"""How much a client may say."""

from __future__ import annotations


class Allowance:
    """A number of frames per second on average, and twice as many at once (a token bucket)."""

    __slots__ = ("_left", "_per_second", "_taken_at")

    def __init__(self, per_second: float) -> None:
        self._per_second = per_second
        self._left = 2 * per_second
        self._taken_at = 0.0

    def take(self, now: float) -> bool:
        """Take one at `now`, in seconds; return whether there was one."""
        earned = (now - self._taken_at) * self._per_second
        self._left = min(2 * self._per_second, self._left + earned)
        self._taken_at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
