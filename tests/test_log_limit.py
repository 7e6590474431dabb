from __future__ import annotations

import logging
import threading

import pytest

from brain.log_events import TOKEN_REFUSED
from brain.log_limit import MOST_KINDS, LimitedLog, LogLimit


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_kind_is_allowed_once_a_minute_with_the_number_left_out() -> None:
    clock = Clock()
    limit = LogLimit(clock)
    taken = [limit.take("a") for clock.now in (0.0, 1.0, 59.0, 60.0, 130.0)]

    assert taken == [0, None, None, 2, 0]


def test_kinds_do_not_count_for_each_other() -> None:
    limit = LogLimit(Clock())

    assert [limit.take(kind) for kind in ("a", "b", "a", "b")] == [0, 0, None, None]


def test_kinds_beyond_the_limit_count_as_one() -> None:
    clock = Clock()
    limit = LogLimit(clock)
    taken = [limit.take(str(number)) for number in range(10 * MOST_KINDS)]

    assert taken.count(0) == MOST_KINDS
    assert taken.count(None) == 9 * MOST_KINDS
    clock.now = 60.0
    # All that were left out are of the kind of the others.
    again = [limit.take(str(number)) for number in range(2 * MOST_KINDS)]
    assert again.count(0) == MOST_KINDS - 2
    assert [each for each in again if each] == [9 * MOST_KINDS]


def test_the_number_left_out_is_kept_for_as_long_as_there_is_room() -> None:
    clock = Clock()
    limit = LogLimit(clock)
    assert [limit.take("a"), limit.take("a")] == [0, None]
    for hour in range(1, 5):
        clock.now = hour * 3600.0
        assert limit.take(f"b{hour}") == 0
    assert limit.take("a") == 1

    assert limit.take("a") is None
    clock.now = 6 * 3600.0
    assert {limit.take(f"c{number}") for number in range(MOST_KINDS)} == {0}


def test_threads_are_allowed_one_line_together() -> None:
    limit = LogLimit(Clock())
    taken: list[int | None] = []

    def take() -> None:
        taken.extend(limit.take(str(number % 50)) for number in range(2000))

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (taken.count(0), taken.count(None)) == (50, 4 * 2000 - 50)


def test_a_line_says_how_many_were_left_out(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    log = LimitedLog(logging.getLogger("brain.test"), clock)
    for clock.now in (0.0, 1.0, 2.0, 60.0):
        log.log(TOKEN_REFUSED, "expired", "refused: %s", "100 %", reason="expired")

    assert caplog.messages == ["refused: 100 %", "refused: 100 % (2 more since the last line)"]
    first, last = caplog.records
    assert not hasattr(first, "left_out")
    assert last.left_out == 2  # type: ignore[attr-defined]
