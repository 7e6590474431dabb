from __future__ import annotations

from itertools import islice

from brain.database.backoff import FIRST_SECONDS, LONGEST_SECONDS, delays


def test_delays_grow_up_to_a_bound_and_are_never_nothing() -> None:
    first, *_, last = waiting = list(islice(delays(), 20))

    assert first <= FIRST_SECONDS
    assert all(0 < seconds <= LONGEST_SECONDS for seconds in waiting)
    assert last >= LONGEST_SECONDS / 2


def test_two_nodes_do_not_wait_in_step() -> None:
    assert list(islice(delays(), 5)) != list(islice(delays(), 5))
