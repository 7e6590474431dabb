"""The fault battery in short: a few of everything. `python -m tests.faults` does more of it."""

from __future__ import annotations

from pathlib import Path
from random import Random
from time import monotonic

import pytest

from tests.faults.battery import SCENARIOS
from tests.faults.ledger import Fact, Notes, Order, Truth
from tests.faults.passing import Loaded, Passing, verdict_on_snapshots
from tests.faults.replica import Chains, Replica, Verdict
from tests.faults.scene import Stage

SEED = 5221


@pytest.mark.parametrize("name", SCENARIOS)
async def test_nothing_is_lost_doubled_reordered_or_leaked(
    name: str, postgres: str, tmp_path: Path
) -> None:
    report = await SCENARIOS[name].short(Stage(postgres, tmp_path, Random(f"{SEED} {name}")))

    assert report.verdict == Verdict(), report
    assert report.writes and report.deliveries and report.faults, report


def fact(task: str, version: int, agent: str | None = None) -> Fact:
    return Fact(task, version, agent or f"{task}{version}", "run_update")


def message(fact: Fact) -> dict[str, object]:
    data = {"id": fact.task, "progress": fact.version, "agent": fact.agent}
    return {"type": fact.type, "data": data}


def truth(*facts: Fact) -> Truth:
    notes = Notes()
    notes.sent = {fact.agent: float("inf") for fact in facts}
    return Truth([(*fact, fact.agent) for fact in facts], notes)


WRITTEN = [fact("a", 1), fact("b", 1), fact("a", 2), fact("a", 3), fact("b", 2)]


def judged(*told: Fact) -> Verdict:
    replica = Replica(set(), known={})
    for each in told:
        replica.hear(message(each))
    return replica.verdict(truth(*WRITTEN), expects_resets=False)


def test_a_client_that_was_told_everything_once_and_in_order_is_content() -> None:
    assert judged(*WRITTEN) == Verdict()


@pytest.mark.parametrize("missing", range(len(WRITTEN)))
def test_whatever_a_client_was_not_told_is_lost(missing: int) -> None:
    assert judged(*WRITTEN[:missing], *WRITTEN[missing + 1 :]) == Verdict(lost=1)


@pytest.mark.parametrize("twice", range(len(WRITTEN)))
def test_whatever_a_client_was_told_twice_is_duplicated(twice: int) -> None:
    assert judged(*WRITTEN, WRITTEN[twice]) == Verdict(duplicated=1)


def test_changes_of_a_task_in_another_order_are_reordered() -> None:
    a1, b1, a2, a3, b2 = WRITTEN

    assert judged(a1, b1, a3, a2, b2) == Verdict(reordered=1)
    assert judged(b1, a1, b2, a2, a3) == Verdict()


def test_what_was_never_committed_is_leaked() -> None:
    assert truth(*WRITTEN).leaked({*WRITTEN, fact("a", 3, "rolled back")}) == 1


def test_after_a_reset_nothing_may_be_missing_of_what_is_committed_from_then_on() -> None:
    def judged_after_reset(*told: Fact) -> Verdict:
        replica = Replica(set(), known={})
        replica.start_over("for a test")
        for each in told:
            replica.hear(message(each))
        return replica.verdict(truth(*WRITTEN), expects_resets=True)

    assert judged_after_reset(*WRITTEN) == Verdict()
    assert judged_after_reset(*WRITTEN[1:]) == Verdict(lost=1)
    assert judged_after_reset(*WRITTEN[:3]) == Verdict(lost=2)
    assert judged_after_reset() == Verdict(lost=5)


def test_a_reset_without_need_is_unexpected() -> None:
    replica = Replica(set(), known={each.task: each.version for each in WRITTEN})
    replica.start_over("for a test")
    over = truth()

    assert replica.verdict(over, expects_resets=False) == Verdict(unexpected=1)
    assert replica.verdict(over, expects_resets=True) == Verdict()


def test_who_is_reset_beyond_the_end_does_not_wait_for_it() -> None:
    replica = Replica(set(), known={})
    replica.note_end(since=monotonic())
    assert not replica.has_heard_the_end
    replica.start_over("for a test")
    assert replica.has_heard_the_end


def test_numbers_that_come_late_are_told_from_those_that_never_come() -> None:
    chains = Chains({"a": 10})
    for number in (11, 14, 13, 13):
        chains.hear("a", number)

    assert chains.verdict() == Verdict(lost=1, duplicated=1, reordered=1)


def test_a_bad_cursor_is_answered_by_one_reset_and_then_by_everything() -> None:
    order = Order(WRITTEN, truth(*WRITTEN))

    def judged_passing(*told: Fact | str) -> Verdict:
        passing = Passing()
        for each in told:
            if isinstance(each, str):
                passing.start_over(each)
            else:
                passing.hear(message(each))
        return passing.verdict_after_reset(order)

    assert judged_passing("too old", *WRITTEN[:2]) == Verdict()
    assert judged_passing(*WRITTEN[:2]) == Verdict(unexpected=1)
    assert judged_passing("too old") == Verdict(unexpected=1)
    assert judged_passing("", *WRITTEN[:2]) == Verdict(unexpected=1)
    assert judged_passing("too old", "again", *WRITTEN[:2]) == Verdict(unexpected=1)
    assert judged_passing("too old", *WRITTEN[1:3]) == Verdict(lost=1)
    assert judged_passing("too old", WRITTEN[0], WRITTEN[2]) == Verdict(lost=1)


def test_a_snapshot_is_the_state_at_the_place_where_its_cursor_goes_on() -> None:
    order = Order(WRITTEN, truth(*WRITTEN))

    def judged_loaded(rows: dict[str, tuple[int, str | None]], *told: Fact) -> Verdict:
        loaded = Loaded(facts=list(told), rows=rows)
        return verdict_on_snapshots([loaded], order)

    exact: dict[str, tuple[int, str | None]] = {"a": (2, "a2"), "b": (1, "b1"), "never": (0, None)}
    assert judged_loaded(exact, *WRITTEN[3:]) == Verdict()
    assert judged_loaded(exact, *WRITTEN[4:]) == Verdict(lost=1)
    assert judged_loaded(exact, *WRITTEN[2:4]) == Verdict(duplicated=1)
    assert judged_loaded({**exact, "a": (2, "rolled back")}, *WRITTEN[3:]) == Verdict(leaked=1)
    assert judged_loaded(exact).unexpected == 1
