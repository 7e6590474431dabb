from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from brain.message.column_kinds import ColumnKind, refusal
from brain.message.matching import Topic, parse_filter

COLUMNS: dict[str, ColumnKind] = {
    "id": "number",
    "status": "string",
    "is_open": "boolean",
    "details": "any",
}


def refused(where: Any) -> str | None:
    topics = [Topic("orders"), Topic("orders", "1", parse_filter(where))]
    return refusal(topics, {"orders": COLUMNS})


@pytest.mark.parametrize("column", ["colour", "Status", ""])
def test_a_column_that_is_not_watched_is_refused_by_name(column: str) -> None:
    expected = f"orders has no column {column}; it has id, status, is_open, details"
    assert refused({column: "x"}) == expected
    assert refused({"status": "x", column: None}) == expected


@pytest.mark.parametrize(
    ("column", "value", "kind"),
    [
        ("id", "1", "number"),
        ("id", True, "number"),
        ("status", 1, "string"),
        ("status", Decimal("1.5"), "string"),
        ("status", False, "string"),
        ("is_open", "true", "boolean"),
        ("is_open", 1, "boolean"),
        ("is_open", 0, "boolean"),
    ],
)
def test_a_value_of_another_kind_than_the_column_is_refused(
    column: str, value: Any, kind: str
) -> None:
    assert refused({column: value}) == f"where: {column} is a {kind}"


@pytest.mark.parametrize(
    "where",
    [
        {"id": 1},
        {"id": 1.5},
        {"id": 10**30},
        {"id": "NaN"},
        {"id": "-Infinity"},
        {"id": None, "status": None, "is_open": None, "details": None},
        {"status": "1", "is_open": False},
        {"details": 1},
        {"details": "x"},
        {"details": True},
    ],
)
def test_a_value_that_a_row_may_have_is_accepted(where: dict[str, Any]) -> None:
    assert refused(json.loads(json.dumps(where))) is None


def test_a_channel_without_a_table_takes_any_filter() -> None:
    assert refusal([Topic("news", where=parse_filter({"colour": 1}))], {"orders": COLUMNS}) is None


def test_a_filter_of_several_channels_is_refused_if_it_matches_in_none_of_them() -> None:
    kinds: dict[str, dict[str, ColumnKind]] = {"orders": COLUMNS, "shelves": {"id": "number"}}

    def refused_in(*channels: str) -> str | None:
        where = parse_filter({"status": "open"})
        return refusal([Topic(channel, where=where) for channel in channels], kinds)

    assert refused_in("orders", "shelves") is None
    assert refused_in("shelves", "news") is None
    assert refused_in("shelves") == "shelves has no column status; it has id"
    assert refused_in("shelves:1", "shelves") == "shelves has no column status; it has id"
