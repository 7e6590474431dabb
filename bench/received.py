"""What clients have received when the writers have ended."""

from __future__ import annotations

import asyncio
import time
from array import array
from typing import NamedTuple

from bench.load import Load

# How long a server may go on delivering after the last write.
DRAINING_SECONDS = 20.0
# Without a message for so long, what is missing is lost.
QUIET_SECONDS = 5.0


class Received(NamedTuple):
    ages: array[float]
    seconds: float
    """How long it took until the last one."""
    late: int
    """How many were missing while others were still coming."""
    lost: int
    """How many were missing when no others came any more."""


async def drained(load: Load, count: int) -> Received:
    """Wait for so many messages, until no more come, or for `DRAINING_SECONDS`."""
    begun = last = time.monotonic()
    ages = await load.ages()
    while len(ages) < count and time.monotonic() < begun + DRAINING_SECONDS:
        await asyncio.sleep(0.1)
        if more := await load.ages():
            ages += more
            last = time.monotonic()
        elif time.monotonic() > last + QUIET_SECONDS:
            break
    missing = count - len(ages)
    is_quiet = time.monotonic() > last + QUIET_SECONDS
    return Received(
        ages, last - begun, late=0 if is_quiet else missing, lost=missing if is_quiet else 0
    )
