from __future__ import annotations

from datetime import UTC, datetime
from random import Random
from typing import Any

import pytest

from brain.message.cursor import Cursor
from brain.message.event import Event, Operation
from brain.message.topic import (
    Interest,
    Told,
    Topic,
    anchors_of,
    interest_in,
    topics_of,
    where_of,
)
from tests.interests import in_channels

EVERYTHING: Any = lambda channel: True  # noqa: E731


def event(
    operation: Operation = Operation.UPDATE,
    data: Any = None,
    old: dict[str, Any] | None = None,
    key: list[Any] | None = None,
    channel: str = "tasks",
) -> Event:
    return Event(Cursor(1, 1, 1), datetime.now(UTC), channel, operation, key, data, old, 100)


def interest(name: str, **where: Any) -> Interest:
    return interest_in(topics_of(name, where_of(where), EVERYTHING))


def test_a_channel_is_heard_whole() -> None:
    tasks = in_channels(["tasks"])
    for operation in Operation:
        assert tasks.told(event(operation, {}, key=["a"])) is Told.AS_IT_IS
    assert tasks.told(event(channel="agents")) is None


@pytest.mark.parametrize(
    ("key", "told"),
    [(["task-1"], Told.AS_IT_IS), (["task-12"], None), ([1], None), (None, Told.AS_IT_IS)],
)
def test_one_row_is_heard_and_that_all_rows_went(key: Any, told: Told | None) -> None:
    operation = Operation.TRUNCATE if key is None else Operation.UPDATE
    assert interest("tasks:task-1").told(event(operation, {}, key=key)) is told


def test_a_row_is_named_by_all_columns_of_its_key() -> None:
    assert interest("parts:7:b").told(event(key=[7, "b"], channel="parts", data={}))
    assert not interest("parts:7").told(event(key=[7, "b"], channel="parts", data={}))


def test_what_is_published_on_the_channel_is_about_no_row() -> None:
    assert interest("tasks:a").told(event(Operation.PUBLISH, {}, channel="tasks")) is None
    assert interest("tasks:a").told(event(Operation.PUBLISH, {}, channel="tasks:a"))


@pytest.mark.parametrize(
    ("operation", "data", "old", "told"),
    [
        (Operation.INSERT, {"agent": "dev"}, None, Told.AS_IT_IS),
        (Operation.INSERT, {"agent": "ops"}, None, None),
        (Operation.INSERT, {}, None, None),
        (Operation.UPDATE, {"agent": "dev", "n": 2}, {"n": 1}, Told.AS_IT_IS),
        (Operation.UPDATE, {"agent": "dev"}, {"agent": "ops"}, Told.AS_IT_IS),
        (Operation.UPDATE, {"agent": "ops"}, {"agent": "dev"}, Told.AS_LEAVING),
        (Operation.UPDATE, {"agent": "ops"}, {"agent": None}, None),
        (Operation.UPDATE, None, {"agent": "dev"}, None),
        (Operation.DELETE, None, {"agent": "dev"}, Told.AS_IT_IS),
        (Operation.DELETE, None, {"agent": "ops"}, None),
        (Operation.TRUNCATE, None, None, Told.AS_IT_IS),
        (Operation.PUBLISH, {"agent": "dev"}, None, Told.AS_IT_IS),
        (Operation.PUBLISH, "dev", None, None),
    ],
)
def test_rows_that_match_are_heard_and_those_that_cease_to_are_told_as_leaving(
    operation: Operation, data: Any, old: Any, told: Told | None
) -> None:
    assert interest("tasks", agent="dev").told(event(operation, data, old, ["a"])) is told


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
    filtered = interest("tasks", n=value)
    for one in same:
        assert filtered.told(event(Operation.INSERT, {"n": one}))
    for other in others:
        assert not filtered.told(event(Operation.INSERT, {"n": other}))


def test_a_filter_is_asked_once_for_all_who_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0
    matches = Topic._matches

    def counting(self: Topic, row: Any) -> bool:
        nonlocal asked
        asked += 1
        return matches(self, row)

    monkeypatch.setattr(Topic, "_matches", counting)
    happened = event(Operation.INSERT, {"agent": "dev"})
    for name in ("tasks", "tasks", "other"):
        interest_in(topics_of(name, where_of({"agent": "dev"}), EVERYTHING)).told(happened)

    assert asked == 1


@pytest.mark.parametrize("columns", [None, [], "a", {"a": []}, {"a": {}}])
def test_a_filter_is_an_object_of_plain_values(columns: Any) -> None:
    with pytest.raises(ValueError, match="where"):
        where_of(columns)


def test_what_may_not_be_heard_is_not_in_it() -> None:
    def only(*allowed: str) -> Any:
        return lambda channel: channel in allowed

    assert topics_of("tasks", (), only("agents")) == frozenset()
    assert topics_of("tasks:a", (), only("tasks")) == {Topic("tasks", "a")}
    assert topics_of("tasks:a", (), only("tasks:a")) == {Topic("tasks", "a"), Topic("tasks:a")}
    assert topics_of("brain.revocations", (), EVERYTHING) == frozenset()
    assert topics_of("brain.revocations:a", (), EVERYTHING) == frozenset()


def test_an_event_is_looked_up_wherever_somebody_may_want_it() -> None:
    """Against asking everybody: who hears an event is found by its anchors."""
    random = Random(5221)
    names = ["tasks", "tasks:a", "tasks:b", "agents", "agents:a", "tasks:a:b"]
    wheres: list[dict[str, Any]] = [{}, {"n": 1}, {"n": 2}, {"n": 1, "m": None}]
    interests = [
        interest_in(
            frozenset(
                topic
                for _ in range(random.randint(1, 3))
                for topic in topics_of(
                    random.choice(names), where_of(random.choice(wheres)), EVERYTHING
                )
            )
        )
        for _ in range(60)
    ]
    heard = 0
    for _ in range(2000):
        happened = event(
            random.choice(list(Operation)),
            {"n": random.randint(1, 2), "m": None},
            {"n": random.randint(1, 2)},
            random.choice([None, ["a"], ["b"], ["a", "b"]]),
            random.choice(["tasks", "agents", "tasks:a"]),
        )
        anchors = set(anchors_of(happened))
        for one in interests:
            if one.told(happened):
                heard += 1
                assert one.anchors & anchors, (one.topics, happened)
    assert heard > 10_000
