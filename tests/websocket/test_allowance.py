from __future__ import annotations

from brain.websocket.allowance import Allowance


def test_twice_a_second_s_worth_may_be_taken_at_once() -> None:
    allowance = Allowance(per_second=10)

    assert [allowance.take(1000.0) for _ in range(21)] == [True] * 20 + [False]


def test_it_is_earned_again_by_and_by_and_no_more_than_was_there() -> None:
    allowance = Allowance(per_second=10)
    while allowance.take(1000.0):
        pass

    assert [allowance.take(1000.35) for _ in range(4)] == [True, True, True, False]
    assert [allowance.take(9000.0) for _ in range(21)] == [True] * 20 + [False]
