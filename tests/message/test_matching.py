from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from brain.auth.policy import Decided
from brain.message.cursor import Cursor
from brain.message.event import Event, Operation
from brain.message.json_text import is_unicode
from brain.message.matching import (
    LONGEST_TEXT,
    Match,
    Topic,
    exact_number,
    parse_filter,
    requested_topics,
)
from brain.message.subscription_set import SubscriptionSet, subscription_set
from tests.message.rows import as_json, optional
from tests.subscription_sets import in_channels

EVERYTHING = Decided(lambda channel: True)


def event(
    operation: Operation = Operation.UPDATE,
    data: Any = None,
    old: dict[str, Any] | None = None,
    key: list[Any] | None = None,
    channel: str = "tasks",
) -> Event:
    is_published = operation is Operation.PUBLISH
    return written(
        as_json(data) if is_published else optional(data),
        operation,
        old=optional(old),
        key=optional(key),
        channel=channel,
    )


def written(
    data: str | None,
    operation: Operation = Operation.INSERT,
    *,
    old: str | None = None,
    key: str | None = None,
    channel: str = "tasks",
    omitted: tuple[str, ...] = (),
) -> Event:
    """Return an event with JSON as it is written."""
    return Event(
        *Cursor(1, 1, 1),
        datetime.now(UTC),
        channel,
        operation,
        key,
        data,
        old,
        100,
        omitted=omitted,
    )


def subscriptions(name: str, **where: Any) -> SubscriptionSet:
    return subscription_set(requested_topics(name, parse_filter(where), EVERYTHING))


def test_a_channel_matches_all_of_its_events() -> None:
    tasks = in_channels(["tasks"])
    for operation in Operation:
        assert tasks.match(event(operation, {}, key=["a"])) is Match.MATCHES
    assert tasks.match(event(channel="agents")) is None


@pytest.mark.parametrize(
    ("key", "expected"),
    [(["task-1"], Match.MATCHES), (["task-12"], None), ([1], None), (None, Match.MATCHES)],
)
def test_a_row_matches_its_own_events_and_a_truncate(key: Any, expected: Match | None) -> None:
    operation = Operation.TRUNCATE if key is None else Operation.UPDATE
    assert subscriptions("tasks:task-1").match(event(operation, {}, key=key)) is expected


def test_a_row_is_named_by_all_columns_of_its_key() -> None:
    assert subscriptions("parts:7:b").match(event(key=[7, "b"], channel="parts", data={}))
    assert not subscriptions("parts:7").match(event(key=[7, "b"], channel="parts", data={}))


def test_a_published_message_concerns_no_row() -> None:
    assert subscriptions("tasks:a").match(event(Operation.PUBLISH, {}, channel="tasks")) is None
    assert subscriptions("tasks:a").match(event(Operation.PUBLISH, {}, channel="tasks:a"))


@pytest.mark.parametrize(
    ("operation", "data", "old", "expected"),
    [
        (Operation.INSERT, {"agent": "dev"}, None, Match.MATCHES),
        (Operation.INSERT, {"agent": "ops"}, None, None),
        (Operation.INSERT, {}, None, None),
        (Operation.UPDATE, {"agent": "dev", "n": 2}, {"agent": "dev", "n": 1}, Match.MATCHES),
        (Operation.UPDATE, {"agent": "dev"}, {"agent": "ops"}, Match.MATCHES),
        (Operation.UPDATE, {"agent": "ops"}, {"agent": "dev"}, Match.LEAVES),
        (Operation.UPDATE, {"agent": "ops"}, {"agent": None}, None),
        (Operation.DELETE, None, {"agent": "dev"}, Match.MATCHES),
        (Operation.DELETE, None, {"agent": "ops"}, None),
        (Operation.TRUNCATE, None, None, Match.MATCHES),
        (Operation.RESET, "reason", None, Match.MATCHES),
        (Operation.PUBLISH, {"agent": "dev"}, None, Match.MATCHES),
        (Operation.PUBLISH, "dev", None, None),
        (Operation.PUBLISH, ["agent", "dev"], None, None),
        (Operation.PUBLISH, None, None, None),
    ],
)
def test_a_filter_matches_rows_and_that_a_row_leaves_it(
    operation: Operation, data: Any, old: Any, expected: Match | None
) -> None:
    assert subscriptions("tasks", agent="dev").match(event(operation, data, old, ["a"])) is expected


@pytest.mark.parametrize(
    ("value", "same", "others"),
    [
        (1, [1, 1.0], [True, "1", None, 2]),
        (True, [True], [1, "true", False]),
        (None, [None], [0, "", False]),
        ("1", ["1"], [1, "1 "]),
        ('a"\\é\n', ['a"\\é\n'], ["a", 'a"\\e\n']),
        (10**300, [10**300, 1e300], [10**300 + 1]),
    ],
)
def test_values_are_compared_as_json_does(value: Any, same: list[Any], others: list[Any]) -> None:
    filtered = subscriptions("tasks", n=value)
    for one in same:
        assert filtered.match(event(Operation.INSERT, {"n": one}))
    for other in others:
        assert not filtered.match(event(Operation.INSERT, {"n": other}))


@pytest.mark.parametrize("columns", [None, [], "a", {"a": []}, {"a": {}}])
def test_a_filter_is_an_object_of_plain_values(columns: Any) -> None:
    with pytest.raises(ValueError, match="where"):
        parse_filter(columns)


def test_a_channel_that_may_not_be_read_is_no_topic() -> None:
    def readable(*allowed: str) -> Any:
        return Decided(lambda channel: channel in allowed)

    assert requested_topics("tasks", (), readable("agents")) == frozenset()
    assert requested_topics("tasks:a", (), readable("tasks")) == {Topic("tasks", "a")}
    assert requested_topics("tasks:a", (), readable("tasks:a")) == {
        Topic("tasks", "a"),
        Topic("tasks:a"),
    }
    assert requested_topics("brain.revocations", (), EVERYTHING) == frozenset()
    assert requested_topics("brain.revocations:a", (), EVERYTHING) == frozenset()


@pytest.mark.parametrize(
    ("text", "value", "is_match"),
    [
        ("9.90", "9.9", True),
        ("12345678901234567890.12", "12345678901234567890.12", True),
        ("12345678901234567890.12", "12345678901234567890.13", False),
        ("1e400", "1e400", True),
        ("9007199254740993", "9007199254740992", False),
        ("9007199254740993.0", "9007199254740993", True),
        ("1e99999999999999999999", "1", False),
    ],
)
def test_numbers_are_compared_by_all_their_digits(text: str, value: str, is_match: bool) -> None:
    where = parse_filter(json.loads(f'{{"n": {value}}}', parse_float=exact_number))
    filtered = subscription_set(requested_topics("tasks", where, EVERYTHING))

    assert (filtered.match(written(f'{{"n" : {text}}}')) is Match.MATCHES) is is_match


@pytest.mark.parametrize("text", ["1e-99999999999999999999", "1e99999999999999999999"])
def test_a_number_beyond_all_bounds_is_no_value_of_a_filter(text: str) -> None:
    with pytest.raises(ValueError, match="exponent"):
        exact_number(text)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_value_that_json_does_not_have_is_none_of_a_filter(value: float) -> None:
    with pytest.raises(ValueError, match="where"):
        parse_filter({"n": value})


def test_a_float_is_the_number_that_it_is_written_as() -> None:
    assert subscriptions("tasks", n=0.1).match(written('{"n" : 0.10}'))


def test_a_filter_matches_no_row_without_its_column() -> None:
    for value in (None, "a", 1):
        assert subscriptions("tasks", scan=value).match(written('{"id" : 1}')) is None
        omitted = written('{"id" : 1}', omitted=("scan",))
        assert subscriptions("tasks", scan=value).match(omitted) is None
    assert subscriptions("tasks", id=1).match(written('{"id" : 1}', omitted=("scan",)))


def test_a_row_whose_column_gets_too_large_leaves_its_filter() -> None:
    grown = written(
        '{"id" : 1}', Operation.UPDATE, old='{"id" : 1, "scan" : "small"}', omitted=("scan",)
    )

    assert subscriptions("tasks", scan="small").match(grown) is Match.LEAVES
    assert subscriptions("tasks", scan="large").match(grown) is None


def test_a_value_may_be_as_long_as_any_column_that_is_never_omitted() -> None:
    longest = "a" * LONGEST_TEXT

    assert subscriptions("tasks", n=longest).match(written(as_json({"n": longest})))
    with pytest.raises(ValueError, match=f"the value of n has more than {LONGEST_TEXT}"):
        parse_filter({"n": longest + "a"})
    with pytest.raises(ValueError, match=f"the name of a column has more than {LONGEST_TEXT}"):
        parse_filter({longest + "a": 1})


def test_a_text_that_cannot_be_sent_is_none_of_a_filter() -> None:
    for where in ({"\ud800": 1}, {"n": "a\udfff"}, {"n": 1, "a\ud800": None}):
        with pytest.raises(ValueError, match="has half of a surrogate pair") as refused:
            parse_filter(where)
        assert is_unicode(str(refused.value))


def test_a_row_of_a_composite_key_is_named_with_its_colons_encoded() -> None:
    row = written("{}", key='["a:b", "c"]', channel="parts")
    other = written("{}", key='["a", "b:c"]', channel="parts")

    assert subscriptions("parts:a%3Ab:c").match(row)
    assert not subscriptions("parts:a%3Ab:c").match(other)
    assert not subscriptions("parts:a:b:c").match(row)
    assert subscriptions("parts:a:b").match(written("{}", key='["a:b"]', channel="parts"))
