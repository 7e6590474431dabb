"""How long to wait before the next attempt: exponential back-off with full jitter."""

from __future__ import annotations

import random

FIRST_SECONDS = 0.25
LONGEST_SECONDS = 10.0


class Backoff:
    """Bounds that double with every attempt; the waiting times are anywhere below them."""

    def __init__(self) -> None:
        self._bound = FIRST_SECONDS

    def seconds(self) -> float:
        """Return how long to wait now."""
        bound = self._bound
        self._bound = min(bound * 2, LONGEST_SECONDS)
        return random.uniform(0, bound)

    def reset(self) -> None:
        """Begin anew: the connection works."""
        self._bound = FIRST_SECONDS
