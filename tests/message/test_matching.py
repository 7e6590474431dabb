from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from brain.message.cursor import Cursor
from brain.message.event import Event, Operation
from brain.message.matching import (
    Match,
    SubscriptionSet,
    Topic,
    parse_filter,
    requested_topics,
    subscription_set,
)
from tests.subscription_sets import in_channels

EVERYTHING: Any = lambda channel: True  # noqa: E731


def event(
    operation: Operation = Operation.UPDATE,
    data: Any = None,
    old: dict[str, Any] | None = None,
    key: list[Any] | None = None,
    channel: str = "tasks",
) -> Event:
    return Event(Cursor(1, 1, 1), datetime.now(UTC), channel, operation, key, data, old, 100)


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
        (Operation.UPDATE, {"agent": "dev", "n": 2}, {"n": 1}, Match.MATCHES),
        (Operation.UPDATE, {"agent": "dev"}, {"agent": "ops"}, Match.MATCHES),
        (Operation.UPDATE, {"agent": "ops"}, {"agent": "dev"}, Match.LEAVES),
        (Operation.UPDATE, {"agent": "ops"}, {"agent": None}, None),
        (Operation.UPDATE, None, {"agent": "dev"}, None),
        (Operation.DELETE, None, {"agent": "dev"}, Match.MATCHES),
        (Operation.DELETE, None, {"agent": "ops"}, None),
        (Operation.TRUNCATE, None, None, Match.MATCHES),
        (Operation.PUBLISH, {"agent": "dev"}, None, Match.MATCHES),
        (Operation.PUBLISH, "dev", None, None),
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
    ],
)
def test_values_are_compared_as_json_does(value: Any, same: list[Any], others: list[Any]) -> None:
    filtered = subscriptions("tasks", n=value)
    for one in same:
        assert filtered.match(event(Operation.INSERT, {"n": one}))
    for other in others:
        assert not filtered.match(event(Operation.INSERT, {"n": other}))


def test_a_filter_is_evaluated_once_for_all_subscriptions_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    evaluations = 0
    matches = Topic._matches

    def counting(self: Topic, row: Any) -> bool:
        nonlocal evaluations
        evaluations += 1
        return matches(self, row)

    monkeypatch.setattr(Topic, "_matches", counting)
    inserted = event(Operation.INSERT, {"agent": "dev"})
    for name in ("tasks", "tasks", "other"):
        subscription_set(requested_topics(name, parse_filter({"agent": "dev"}), EVERYTHING)).match(
            inserted
        )

    assert evaluations == 1


@pytest.mark.parametrize("columns", [None, [], "a", {"a": []}, {"a": {}}])
def test_a_filter_is_an_object_of_plain_values(columns: Any) -> None:
    with pytest.raises(ValueError, match="where"):
        parse_filter(columns)


def test_a_channel_that_may_not_be_read_is_no_topic() -> None:
    def readable(*allowed: str) -> Any:
        return lambda channel: channel in allowed

    assert requested_topics("tasks", (), readable("agents")) == frozenset()
    assert requested_topics("tasks:a", (), readable("tasks")) == {Topic("tasks", "a")}
    assert requested_topics("tasks:a", (), readable("tasks:a")) == {
        Topic("tasks", "a"),
        Topic("tasks:a"),
    }
    assert requested_topics("brain.revocations", (), EVERYTHING) == frozenset()
    assert requested_topics("brain.revocations:a", (), EVERYTHING) == frozenset()


def test_the_result_for_an_event_is_cached_by_one_look_at_the_filter() -> None:
    class Hashed(str):
        """Counts its hashes."""

        __slots__ = ()

        def __hash__(self) -> int:
            hashes.append(self)
            return super().__hash__()

    hashes: list[str] = []
    topic = Topic("tasks", where=((Hashed("agent"), "dev", False),))
    for row, expected in (({"agent": "ops"}, None), ({"agent": "dev"}, Match.MATCHES)):
        one = event(Operation.INSERT, row)
        assert topic.match(one) is expected
        hashes.clear()
        assert topic.match(one) is expected
        assert len(hashes) == 1
