from __future__ import annotations

from brain.listener.pace import Pace


def paced(pace: Pace, rate: float, seconds: float, start: float) -> float:
    """Note a change `rate` times a second; return the time afterwards."""
    count = int(rate * seconds)
    for number in range(count):
        pace.note(changes=1, now=start + number / rate)
    return start + count / rate


def test_rare_changes_leave_a_node_calm() -> None:
    pace = Pace(busy_from=200, calm_below=100)

    paced(pace, rate=50, seconds=5, start=0)

    assert not pace.is_busy


def test_fast_changes_make_a_node_busy_within_a_second() -> None:
    pace = Pace(busy_from=200, calm_below=100)

    paced(pace, rate=400, seconds=1, start=0)

    assert pace.is_busy


def test_a_rate_between_the_thresholds_changes_nothing() -> None:
    pace = Pace(busy_from=200, calm_below=100)
    now = paced(pace, rate=150, seconds=5, start=0)
    assert not pace.is_busy

    now = paced(pace, rate=400, seconds=1, start=now)
    paced(pace, rate=150, seconds=5, start=now)

    assert pace.is_busy


def test_a_node_calms_down_when_it_finds_nothing() -> None:
    pace = Pace(busy_from=200, calm_below=100)
    now = paced(pace, rate=400, seconds=1, start=0)

    for number in range(200):
        pace.note(changes=0, now=now + number * 0.005)

    assert not pace.is_busy


def test_a_node_that_cannot_keep_up_stays_busy() -> None:
    """It reads rarely, and much each time."""
    pace = Pace(busy_from=200, calm_below=100)

    for number in range(20):
        pace.note(changes=100, now=number * 0.2)

    assert pace.is_busy
