"""How long to wait before the next attempt: exponential back-off with jitter."""

from __future__ import annotations

import random
from collections.abc import Iterator

FIRST_SECONDS = 0.1
LONGEST_SECONDS = 5.0


def delays() -> Iterator[float]:
    """Yield waiting times in seconds that double up to a bound, each somewhat at random."""
    seconds = FIRST_SECONDS
    while True:
        yield seconds * random.uniform(0.5, 1.0)
        seconds = min(seconds * 2, LONGEST_SECONDS)
