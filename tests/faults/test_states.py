"""Tests of the simple client, and of the judge of what it keeps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from tests.database.random_filters import Type
from tests.faults.filter_sql import filter_in_sql
from tests.faults.judged_copy import JudgedCopy, fault
from tests.faults.random_table import RandomTable, Rows, State
from tests.faults.random_writers import History

Frame = dict[str, Any]


def row(number: int, status: str) -> Frame:
    return {"id": number, "status": status}


def change(op: str, number: int, status: str = "", txid: str = "8", **more: Any) -> Frame:
    rows = {"row": row(number, status)} if status else {}
    return {"op": op, "key": [number], "txid": txid, **rows, **more}


# The transaction 8 adds a row and changes another one, 9 moves a row out of the view.
SNAPSHOT: Sequence[Frame] = (
    {"op": "snapshot", "rows": [{"key": [n], "row": row(n, "new")} for n in (1, 3)]},
    {"op": "snapshot-end", "cursor": "7"},
)
INSERT = change("insert", 2, "new")
UPDATE = change("update", 1, "paid", last=True)
LEAVE = change("leave", 2, txid="9", last=True)
FRAMES = (*SNAPSHOT, INSERT, UPDATE, LEAVE)

THIRD = {"[3]": row(3, "new")}
FIRST: Rows = {"[1]": row(1, "new"), **THIRD}
SECOND: Rows = {"[1]": row(1, "paid"), "[2]": row(2, "new"), **THIRD}
LAST: Rows = {"[1]": row(1, "paid"), **THIRD}


def faults(*frames: Frame) -> list[str]:
    """Return what is wrong with what a client keeps, after each transaction and in the end."""
    history = History("", RandomTable("orders", {"id": "int4"}, {}), State(FIRST, [FIRST]))
    history.note("8", State(SECOND, [SECOND]))
    history.note("9", State({**LAST, "[2]": row(2, "old")}, [LAST]))
    copy = JudgedCopy()
    for frame in frames:
        copy.take({"sub": 7, **frame})
    found = [fault(rows, history.effects.get(txid), 0) for txid, rows in copy.applied]
    return [*filter(None, found), *(["the end"] if copy.rows != LAST else [])]


def test_a_client_that_gets_everything_has_no_faults() -> None:
    assert faults(*FRAMES) == []


@pytest.mark.parametrize("missing", [SNAPSHOT[0], INSERT, UPDATE, LEAVE])
def test_what_a_client_does_not_get_is_a_fault(missing: Frame) -> None:
    assert faults(*(frame for frame in FRAMES if frame is not missing))


def test_a_transaction_that_is_applied_in_parts_is_a_fault() -> None:
    assert len(faults(*SNAPSHOT, {**INSERT, "last": True}, UPDATE, LEAVE)) == 1


def test_what_was_not_committed_is_a_fault() -> None:
    assert "it was not committed" in faults(*FRAMES, change("insert", 4, "x", "10", last=True))


def test_a_reset_and_a_truncate_leave_nothing() -> None:
    everything_again = ({"op": "reset"}, *SNAPSHOT, INSERT, UPDATE, LEAVE)
    assert faults(*SNAPSHOT, change("insert", 5, "x"), *everything_again) == []
    truncate = {"op": "truncate", "txid": "9", "last": True}
    assert "the end" in faults(*FRAMES, truncate)


def test_an_end_of_a_transaction_without_a_last_frame_completes_it() -> None:
    commit = {"op": "commit", "txid": "8"}
    not_last = {name: value for name, value in UPDATE.items() if name != "last"}
    assert faults(*SNAPSHOT, INSERT, not_last, commit, LEAVE) == []
    assert faults(*SNAPSHOT, INSERT, not_last, LEAVE)


@pytest.mark.parametrize(
    ("filter", "condition"),
    [
        ('{"a": "x\'"}', """("a"::text COLLATE "C" = E'x\\''::text)"""),
        ('{"n": {"gt": 1.10, "is": null}}', """("n"::numeric > E'1.10'::numeric)"""),
        ('{"a": {"in": []}}', "false"),
        ('{"and": [], "or": []}', "(true and false)"),
    ],
)
def test_filters_are_conditions_of_sql(filter: str, condition: str) -> None:
    columns = {"a": Type("text", ()), "n": Type("int4", ())}
    assert condition in filter_in_sql(filter, columns)
