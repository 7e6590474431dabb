"""
Keeps the collections of Python's garbage collector short: each stops the whole process.

A collection takes as long as there are containers to visit, so they are kept few. What exists when
Brain begins to serve is frozen, and an event in the ring is none (`brain/message/event.py`). What
is new is visited some times a second, and belongs to the oldest generation from then on. That one
waits until there is nothing else to do. It can: a closed connection leaves no reference cycle, and
is freed at once.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable

# Python collects by how many more containers there are than before, which is nothing while old ones
# go as fast as new ones come. This is for bursts between two looks.
MOST_NEW_CONTAINERS = 5_000
NEVER = 2**31 - 1
YOUNGER, ALL = 1, 2
"""Generations up to which is collected."""

# The oldest generation is collected when the process is idle and has worked for so long since.
DUE_SECONDS = 5.0
# How much of the time between two looks an idle process may work.
IDLE_SHARE = 0.03
# A process that is never idle collects it all the same once so many more blocks of memory are in
# use, some 256 MiB: several times as many as a full ring has, so that load alone does not do it.
MOST_NEW_BLOCKS = 4_000_000


class GarbageCollection:
    """Decides when the garbage of this process is collected."""

    def __init__(
        self,
        collect: Callable[[int], object] = gc.collect,
        clock: Callable[[], float] = time.monotonic,
        processor_clock: Callable[[], float] = time.process_time,
        used_blocks: Callable[[], int] = sys.getallocatedblocks,
    ) -> None:
        self._collect = collect
        self._clock = clock
        self._processor_clock = processor_clock
        self._used_blocks = used_blocks
        self._looked_at = self._worked = 0.0
        """By the two clocks, when `look` was called last."""
        self._worked_then = 0.0
        """How long the process had worked when everything was collected last."""
        self._blocks_then = 0

    def begin(self) -> None:
        """Exempt what exists now from all collections; to be called once everything has started."""
        self._collect(ALL)
        gc.freeze()
        # An incremental collector, as that of Python 3.14, has no oldest generation, but parts.
        if gc.get_threshold()[2]:
            gc.set_threshold(MOST_NEW_CONTAINERS, NEVER, NEVER)
        self._looked_at = self._clock()
        self._note()

    def look(self) -> None:
        """Collect what is new, and everything if that is due; to be called ten times a second."""
        passed, self._looked_at = self._clock() - self._looked_at, self._clock()
        worked, self._worked = self._processor_clock() - self._worked, self._processor_clock()
        is_due = self._worked - self._worked_then >= DUE_SECONDS
        if (is_due and worked <= IDLE_SHARE * passed) or (
            self._used_blocks() - self._blocks_then >= MOST_NEW_BLOCKS
        ):
            self._collect(ALL)
            self._note()
        else:
            self._collect(YOUNGER)

    def _note(self) -> None:
        self._worked = self._worked_then = self._processor_clock()
        self._blocks_then = self._used_blocks()
