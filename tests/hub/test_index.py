from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from random import Random
from typing import Any

import pytest

from brain.auth.policy import Decided
from brain.hub.cohort import Cohort
from brain.hub.subscription_index import SubscriptionIndex
from brain.message.base_format import BaseFormat
from brain.message.cursor import Cursor
from brain.message.encodings import encoding_of
from brain.message.event import Event, Operation
from brain.message.matching import Topic, parse_filter, requested_topics
from brain.message.subscription_set import SubscriptionSet, subscription_set
from brain.transport.websocket_frames import WEBSOCKET_FRAMING
from tests.message.rows import optional

ENCODING = encoding_of(BaseFormat(), WEBSOCKET_FRAMING)


def cohort(*topics: Topic) -> Cohort:
    return Cohort(ENCODING, subscription_set(frozenset(topics)), 0.0)


def event(
    channel: str,
    operation: Operation = Operation.UPDATE,
    data: Any = None,
    old: dict[str, Any] | None = None,
    key: list[Any] | None = None,
) -> Event:
    texts = (optional(key), optional(data), optional(old))
    return Event(*Cursor(1, 1, 1), datetime.now(UTC), channel, operation, *texts, 100)


def random_subscriptions(random: Random) -> SubscriptionSet:
    names = ["tasks", "tasks:a", "tasks:b", "agents", "agents:a", "tasks:a:b"]
    wheres: list[dict[str, Any]] = [{}, {"n": 1}, {"n": 2}, {"n": 1, "m": None}]
    return subscription_set(
        frozenset(
            topic
            for _ in range(random.randint(1, 3))
            for topic in requested_topics(
                random.choice(names),
                parse_filter(random.choice(wheres)),
                Decided(lambda channel: True),
            )
        )
    )


def random_event(random: Random) -> Event:
    operation = random.choice(list(Operation))
    has_row = operation not in (Operation.TRUNCATE, Operation.RESET, Operation.PUBLISH)
    return event(
        random.choice(["tasks", "agents", "tasks:a"]),
        operation,
        None if operation is Operation.DELETE else {"n": random.randint(1, 2), "m": None},
        {"n": random.randint(1, 2)} if has_row and operation is not Operation.INSERT else None,
        random.choice([["a"], ["b"], ["a", "b"]]) if has_row else None,
    )


def concerns(topic: Topic, event: Event) -> bool:
    """Return True if an event concerns a topic, by comparing it with each column."""
    if event.channel != topic.channel:
        return False
    if event.operation in (Operation.TRUNCATE, Operation.RESET):
        return True
    if topic.key is not None and (
        event.operation is Operation.PUBLISH or event.key_text != topic.key
    ):
        return False
    texts = [event.old] if event.operation is Operation.DELETE else [event.data]
    if event.operation is Operation.UPDATE:
        texts.append(event.old)
    rows = [json.loads(text) for text in texts if text is not None]
    return not topic.where or any(
        all(name in row and row[name] == value for name, value, _ in topic.where) for row in rows
    )


def test_an_event_is_looked_up_under_every_subscription_that_it_may_concern() -> None:
    """Compared with a scan of all cohorts, also after some of them were removed."""
    random = Random(5221)
    index = SubscriptionIndex()
    cohorts = [Cohort(ENCODING, random_subscriptions(random), 0.0) for _ in range(60)]
    for one in cohorts:
        index.add(one)
    matches = 0
    for _ in range(2):
        for _ in range(2000):
            sample = random_event(random)
            whole, parts = index.find([sample])
            found = whole | parts.keys()
            assert found <= set(cohorts)
            for one in cohorts:
                is_match = any(concerns(topic, sample) for topic in one.subscriptions.topics)
                assert (one in found) is is_match, (one.subscriptions.topics, sample)
                match = one.subscriptions.match(sample)
                assert (match is not None) is is_match
                assert one not in parts or parts[one] == [(sample, match)]
                matches += is_match
        for _ in range(30):
            index.remove(cohorts.pop(random.randrange(len(cohorts))))
    assert matches > 10_000


A, B = cohort(Topic("tasks", "a")), cohort(Topic("tasks", "b"))
WHOLE, FILTERED = cohort(Topic("tasks")), cohort(Topic("tasks", where=parse_filter({"n": 1})))
OTHER = cohort(Topic("agents"))


@pytest.mark.parametrize(
    ("events", "found"),
    [
        ([event("tasks", key=["a"])], {A, WHOLE}),
        ([event("tasks", data={"n": 1}, key=["c"])], {WHOLE, FILTERED}),
        ([event("tasks", data={"n": 2}, old={"n": 1}, key=["c"])], {WHOLE, FILTERED}),
        ([event("tasks", data={"n": 2}, key=["c"])], {WHOLE}),
        ([event("tasks", key=["c"])], {WHOLE}),
        ([event("tasks", key=["a"]), event("tasks", key=["b"])], {A, B, WHOLE}),
        ([event("tasks", Operation.TRUNCATE)], {A, B, WHOLE, FILTERED}),
        ([event("tasks", Operation.PUBLISH, {"n": 1})], {WHOLE, FILTERED}),
        ([event("tasks", key=["a"]), event("agents", key=["a"])], {A, WHOLE, OTHER}),
        ([event("orders", key=["a"])], set()),
        ([], set()),
    ],
)
def test_cohorts_of_other_rows_and_channels_are_not_asked(
    events: Sequence[Event], found: set[Cohort]
) -> None:
    index = SubscriptionIndex()
    for one in (A, B, WHOLE, FILTERED, OTHER):
        index.add(one)

    whole, parts = index.find(events)
    assert whole | parts.keys() == found


def test_nothing_is_kept_of_cohorts_that_were_removed() -> None:
    index = SubscriptionIndex()
    both = cohort(Topic("tasks"), Topic("tasks", "a"), Topic("agents", "a"))
    for one in (both, A, OTHER):
        index.add(one)
    for one in (both, A, OTHER):
        index.remove(one)

    assert index._channels == {}
