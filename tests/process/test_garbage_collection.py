from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from brain.process.garbage_collection import (
    ALL,
    DUE_SECONDS,
    IDLE_SHARE,
    MOST_NEW_BLOCKS,
    YOUNGER,
    GarbageCollection,
)

LOOK_SECONDS = 0.1


class Process:
    """One whose clocks and memory stand still, and which notes what is collected."""

    def __init__(self) -> None:
        self.now = self.worked = 0.0
        self.blocks = 0
        self.collected: list[int] = []
        self.garbage_collection = GarbageCollection(
            self.collected.append, lambda: self.now, lambda: self.worked, lambda: self.blocks
        )

    def look(self, worked: float) -> int:
        """Return up to which generation is collected after a tenth of a second."""
        self.now += LOOK_SECONDS
        self.worked += worked
        self.garbage_collection.look()
        return self.collected.pop()

    def work_until_due(self) -> None:
        for _ in range(int(DUE_SECONDS / LOOK_SECONDS) + 1):
            assert self.look(worked=LOOK_SECONDS) == YOUNGER


@pytest.fixture
def process() -> Iterator[Process]:
    process = Process()
    thresholds = gc.get_threshold()
    process.garbage_collection.begin()
    process.collected.clear()
    yield process
    gc.set_threshold(*thresholds)
    gc.unfreeze()


def test_what_exists_at_the_start_is_never_visited(process: Process) -> None:
    assert gc.get_freeze_count() > 0


def test_python_itself_collects_no_oldest_generation(process: Process) -> None:
    assert gc.get_threshold()[2] in (0, 2**31 - 1)


def test_what_is_new_is_collected_at_each_look(process: Process) -> None:
    assert [process.look(worked=0.05) for _ in range(3)] == [YOUNGER] * 3


def test_everything_is_collected_once_the_process_is_idle(process: Process) -> None:
    process.work_until_due()

    assert process.look(worked=2 * IDLE_SHARE * LOOK_SECONDS) == YOUNGER
    assert process.look(worked=0.5 * IDLE_SHARE * LOOK_SECONDS) == ALL
    assert process.look(worked=0.0) == YOUNGER


def test_a_process_that_has_done_little_is_left_alone(process: Process) -> None:
    process.look(worked=DUE_SECONDS / 2)

    assert process.look(worked=0.0) == YOUNGER


def test_everything_is_collected_when_much_more_memory_is_in_use(process: Process) -> None:
    process.blocks = MOST_NEW_BLOCKS - 1
    assert process.look(worked=LOOK_SECONDS) == YOUNGER
    process.blocks = MOST_NEW_BLOCKS
    assert process.look(worked=LOOK_SECONDS) == ALL
    assert process.look(worked=LOOK_SECONDS) == YOUNGER
