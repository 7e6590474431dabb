"""Tests of the judges of the battery for clients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import pytest

from tests.faults.client_battery import receipts, renders
from tests.faults.client_battery.orders import OPEN_SUM, History, Order, State, only_open
from tests.faults.client_battery.receipts import Receipts
from tests.faults.client_battery.renders import LOADING, UNMOUNTED, Render

Change = Mapping[str, Any]


def order(total: int, status: str = "open") -> Order:
    return Order(status, Decimal(total))


# The order 1 is inserted, changed, removed by a TRUNCATE, and inserted again; 2 was there before.
HISTORY: History = {
    1: [
        State(3, "11", order(5)),
        State(4, "12", order(6)),
        State(6, "14", None),
        State(8, "15", order(7)),
    ],
    2: [State(1, "10", order(1)), State(5, "13", order(2)), State(7, "14", None)],
}


def change(op: str, id: int, txid: str, total: int | None = None) -> Change:
    row = {} if total is None else {"row": {"id": id, "status": "open", "total": total}}
    return {"op": op, "key": [id], "txid": txid, **row}


SENT: Sequence[Change] = (
    change("insert", 1, "11", 5),
    change("update", 1, "12", 6),
    change("update", 2, "13", 2),
    {"op": "truncate", "txid": "14"},
    change("insert", 1, "15", 7),
)


def snapshot(*rows: tuple[int, int]) -> Sequence[Change]:
    pages = [
        {"op": "snapshot", "key": [id], "row": {"status": "open", "total": total}}
        for id, total in rows
    ]
    return [*pages, {"op": "snapshot-end"}, {"op": "live"}]


def faults(*sent: Change | None, since: int | None = 2) -> list[str]:
    """Return what is wrong with changes; None stands for a restart of the program."""
    taken = Receipts()
    for each in sent:
        if each is None:
            taken.restart()
        else:
            taken.take(each)
    return receipts.faults(taken, HISTORY, since)


def test_a_program_that_is_sent_each_change_once_has_no_faults() -> None:
    assert faults(*SENT) == []
    assert faults(*snapshot((1, 5), (2, 1)), *SENT[1:], since=None) == []
    assert faults(*snapshot((1, 7)), since=None) == []


@pytest.mark.parametrize("number", range(len(SENT)))
def test_a_change_that_is_lost_or_doubled_is_a_fault(number: int) -> None:
    assert faults(*SENT[:number], *SENT[number + 1 :])
    is_truncate = SENT[number]["op"] == "truncate"
    assert is_truncate or faults(*SENT[:number], SENT[number], *SENT[number:])


def test_changes_of_a_row_in_another_order_are_a_fault() -> None:
    assert faults(SENT[1], SENT[0], *SENT[2:])


def test_a_snapshot_of_another_moment_than_what_follows_is_a_fault() -> None:
    assert faults(*snapshot((1, 6), (2, 1)), *SENT[1:], since=None)
    assert faults(*snapshot((1, 5), (2, 1)), *SENT[2:], since=None)
    assert faults(*snapshot((2, 1)), *SENT[2:], since=None)
    assert faults(*snapshot((1, 7), (2, 2)), since=None)


def test_after_a_reset_everything_from_a_snapshot_on_has_to_come() -> None:
    reset = {"op": "reset"}
    assert faults(*SENT[:2], reset, *snapshot((1, 7))) == []
    assert faults(*snapshot((1, 5), (2, 1)), *snapshot((1, 7)))
    assert faults(SENT[1], reset, *snapshot((1, 7)))
    assert faults(*SENT[:2], reset, *snapshot())


def test_a_restarted_program_may_be_sent_again_what_it_had_in_hand() -> None:
    assert faults(*SENT[:2], None, *SENT[1:]) == []
    assert faults(*SENT[:2], None, *SENT[2:]) == []
    assert faults(*SENT[:2], None, *SENT)
    assert faults(*SENT[:2], None, *SENT[3:])


def test_orders_that_are_not_open_are_gone() -> None:
    paid = order(5, "paid")
    states = [
        State(1, "1", paid),
        State(2, "2", order(5)),
        State(3, "3", paid),
        State(4, "4", None),
    ]
    assert only_open({1: states}) == {1: [State(2, "2", order(5)), State(3, "3", None)]}


BANK = int(OPEN_SUM)


def table(*totals: int) -> Render:
    """Return the bank, which has the rest of the sum, and some orders."""
    bank = (-1, Order("open", OPEN_SUM - sum(totals)))
    return [bank, *((number, order(total)) for number, total in enumerate(totals, 1))]


def history_of(*tables: Render) -> History:
    """Return the history in which these were the committed states."""
    states: dict[int, list[State]] = {}
    for number, each in enumerate(tables):
        assert not isinstance(each, str)
        rows = dict(each)
        for id in (-1, 1, 2):
            known = states.setdefault(id, [])
            if (known[-1].order if known else None) != rows.get(id):
                known.append(State(number, str(number), rows.get(id)))
    return states


SHOWN = (table(5), table(5, 3), table(6, 3), table(6), table(6, 9))


def faults_of_renders(*shown: Render) -> list[str]:
    return renders.faults(shown, history_of(*SHOWN))


def test_a_page_that_shows_committed_states_has_no_faults() -> None:
    assert faults_of_renders(LOADING, *SHOWN) == []
    assert faults_of_renders(LOADING, SHOWN[1], SHOWN[4]) == []
    assert faults_of_renders(LOADING, SHOWN[0], UNMOUNTED, LOADING, SHOWN[2]) == []


@pytest.mark.parametrize(
    ("what", "shown"),
    [
        ("once more", [SHOWN[0], LOADING, SHOWN[1]]),
        ("off by", [table(5, 3)[:2]]),
        ("twice", [[*SHOWN[0], SHOWN[0][1]]]),
        ("not open", [[*SHOWN[0], (2, order(0, "paid"))]]),
        ("never", [table(4)]),
        ("not any more", [SHOWN[1], SHOWN[0], SHOWN[1]]),
        ("not any more", [SHOWN[2], SHOWN[1]]),
    ],
)
def test_what_a_page_may_not_show_is_a_fault(what: str, shown: Sequence[Render]) -> None:
    found = faults_of_renders(LOADING, *shown)
    assert any(what in fault for fault in found), found
