"""How much a client may say."""

from __future__ import annotations


class Allowance:
    """So much per second on average, and twice as much at once (a token bucket)."""

    __slots__ = ("_left", "_per_second", "_taken_at")

    def __init__(self, per_second: float) -> None:
        self._per_second = per_second
        self._left = 2 * per_second
        self._taken_at = 0.0

    @property
    def is_low(self) -> bool:
        """Whether half of what may be taken at once is gone."""
        return self._left < self._per_second

    def take(self, now: float, amount: float = 1) -> bool:
        """Take some at `now`, in seconds; return whether there was so much."""
        earned = (now - self._taken_at) * self._per_second
        self._left = min(2 * self._per_second, self._left + earned)
        self._taken_at = now
        if self._left < amount:
            return False
        self._left -= amount
        return True
