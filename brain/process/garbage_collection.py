"""
Keeps the collections of Python's garbage collector short: each stops the whole process.

A collection takes as long as there are containers to visit. Brain has few: what exists when it
begins to serve is frozen, an event in the ring is none (`brain/message/event.py`), and a closed
connection is freed at once, since it leaves no reference cycle. Collections of the two younger
generations are small, and one of the oldest waits until nothing else is to be done.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable

# How many more containers there are when the youngest generation is collected, and how many such
# collections there are for one of the middle generation: it visits some 5,000 containers.
YOUNGEST_CONTAINERS = 1000
YOUNGEST_PER_MIDDLE = 5
NEVER = 2**31 - 1

# So many collections of the middle generation make one of the oldest due, as Python has it.
MIDDLE_PER_OLDEST = 10
# Of the processor time between two looks, what an idle process may use.
IDLE_SHARE = 0.03
# A process that is never idle is collected all the same once so many more blocks of memory are in
# use, which are some 64 MiB: more than a full ring has.
MOST_NEW_BLOCKS = 1_000_000


class GarbageCollection:
    """When the oldest generation of a process is collected."""

    def __init__(
        self,
        collect: Callable[[], object] = gc.collect,
        clock: Callable[[], float] = time.monotonic,
        processor_clock: Callable[[], float] = time.process_time,
        used_blocks: Callable[[], int] = sys.getallocatedblocks,
    ) -> None:
        self._collect = collect
        self._clock = clock
        self._processor_clock = processor_clock
        self._used_blocks = used_blocks
        self._looked_at = self._spent = 0.0
        self._blocks = 0
        """How many blocks were in use after the last collection."""

    def begin(self) -> None:
        """Exempt what exists now from all collections; to be called once everything has started."""
        self._collect()
        gc.freeze()
        # An incremental collector, as that of Python 3.14, has no oldest generation to wait with.
        if gc.get_threshold()[2]:
            gc.set_threshold(YOUNGEST_CONTAINERS, YOUNGEST_PER_MIDDLE, NEVER)
        self._looked_at, self._spent = self._clock(), self._processor_clock()
        self._blocks = self._used_blocks()

    def look(self) -> None:
        """Collect the oldest generation if this is due; to be called some times a second."""
        looked_at, spent = self._looked_at, self._spent
        self._looked_at, self._spent = self._clock(), self._processor_clock()
        is_idle = self._spent - spent <= IDLE_SHARE * (self._looked_at - looked_at)
        is_due = is_idle and gc.get_count()[2] >= MIDDLE_PER_OLDEST
        if is_due or self._used_blocks() - self._blocks >= MOST_NEW_BLOCKS:
            self._collect()
            self._blocks = self._used_blocks()
