"""Filters, keys and times as they are typed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from brain.cli.listening.conditions import parsed_filter, parsed_key
from brain.cli.listening.moments import parsed_duration, seconds_since
from brain.errors import UsageError

NOW = datetime(2026, 2, 6, 1, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "filter"),
    [
        ("status=open", {"status": {"eq": "open"}}),
        ("total>=10", {"total": {"gte": "10"}}),
        ("total <= 1.50", {"total": {"lte": " 1.50"}}),
        ("total<-1", {"total": {"lt": "-1"}}),
        ("total>1", {"total": {"gt": "1"}}),
        ("status!=paid", {"status": {"neq": "paid"}}),
        ("formula=a>=b", {"formula": {"eq": "a>=b"}}),
        ("note=", {"note": {"eq": ""}}),
        ("note=line\nline", {"note": {"eq": "line\nline"}}),
        ("the note=x", {"the note": {"eq": "x"}}),
        ("paid=true", {"paid": {"eq": True}}),
        ("paid!=false", {"paid": {"neq": False}}),
        ("closed=null", {"closed": {"is": None}}),
        ('word="null"', {"word": {"eq": "null"}}),
        ('word="', {"word": {"eq": '"'}}),
        ("and=1", {"and": {"eq": "1"}}),
        ('{"or": [{"a": 1}, {"b": 2.5}]}', {"or": [{"a": 1}, {"b": 2.5}]}),
    ],
)
def test_a_condition_is_a_column_a_sign_and_a_value_or_json(
    text: str, filter: dict[str, Any]
) -> None:
    assert parsed_filter([text]) == filter


def test_of_several_conditions_all_have_to_hold() -> None:
    assert parsed_filter([]) is None
    assert parsed_filter(["a=1", "a<9"]) == {"and": [{"a": {"eq": "1"}}, {"a": {"lt": "9"}}]}


@pytest.mark.parametrize("text", ["status", "=open", "", ">1", "a<null", "a!=null", "{", '{"a" 1}'])
def test_what_is_no_condition_is_wrong_usage(text: str) -> None:
    with pytest.raises(UsageError):
        parsed_filter([text])


@pytest.mark.parametrize(
    ("text", "key"),
    [("7", 7), ("abc", "abc"), ('"7"', "7"), ('["a", 1]', ["a", 1]), ("9" * 30, int("9" * 30))],
)
def test_a_key_is_json_or_a_text(text: str, key: Any) -> None:
    assert parsed_key(text) == key


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("10m", 600), ("2h", 7200), ("1d", 86400), ("1h30m", 5400), ("0.5s", 0.5)],
)
def test_a_duration_has_a_unit(text: str, seconds: float) -> None:
    assert parsed_duration(text) == seconds
    assert seconds_since(text, NOW) == seconds


@pytest.mark.parametrize("text", ["", "10", "m", "10 m", "-1m", "1w", "0s", "٣m"])
def test_what_is_no_duration_is_wrong_usage(text: str) -> None:
    with pytest.raises(UsageError):
        parsed_duration(text)


def test_a_moment_is_iso_8601_and_local_without_an_offset() -> None:
    assert seconds_since("2026-02-06T01:20:00Z", NOW) == 600
    assert seconds_since("2026-02-06T02:20:00+01:00", NOW) == 600
    local = (NOW - timedelta(minutes=5)).astimezone().replace(tzinfo=None)
    assert seconds_since(local.isoformat(), NOW) == 300


@pytest.mark.parametrize("text", ["2026-02-06T01:30:00Z", "2026-02-07", "now"])
def test_a_moment_that_is_none_or_has_not_come_is_wrong_usage(text: str) -> None:
    with pytest.raises(UsageError):
        seconds_since(text, NOW)
