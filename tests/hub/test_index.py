from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from random import Random
from typing import Any

import pytest

from brain.hub.cohort import Cohort
from brain.hub.subscription_index import SubscriptionIndex
from brain.message.base_format import BaseFormat
from brain.message.cursor import Cursor
from brain.message.event import Event, Operation
from brain.message.matching import (
    SubscriptionSet,
    Topic,
    parse_filter,
    requested_topics,
    subscription_set,
)
from brain.message.rendering import encoding_of
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
    return Event(Cursor(1, 1, 1), datetime.now(UTC), channel, operation, *texts, 100)


def random_subscriptions(random: Random) -> SubscriptionSet:
    names = ["tasks", "tasks:a", "tasks:b", "agents", "agents:a", "tasks:a:b"]
    wheres: list[dict[str, Any]] = [{}, {"n": 1}, {"n": 2}, {"n": 1, "m": None}]
    return subscription_set(
        frozenset(
            topic
            for _ in range(random.randint(1, 3))
            for topic in requested_topics(
                random.choice(names), parse_filter(random.choice(wheres)), lambda channel: True
            )
        )
    )


def random_event(random: Random) -> Event:
    return event(
        random.choice(["tasks", "agents", "tasks:a"]),
        random.choice(list(Operation)),
        {"n": random.randint(1, 2), "m": None},
        {"n": random.randint(1, 2)},
        random.choice([None, ["a"], ["b"], ["a", "b"]]),
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
            found = index.cohorts_of([sample])
            assert found <= set(cohorts)
            for one in cohorts:
                if one.subscriptions.match(sample):
                    matches += 1
                    assert one in found, (one.subscriptions.topics, sample)
        for _ in range(30):
            index.remove(cohorts.pop(random.randrange(len(cohorts))))
    assert matches > 10_000


A, B = cohort(Topic("tasks", "a")), cohort(Topic("tasks", "b"))
WHOLE, FILTERED = cohort(Topic("tasks")), cohort(Topic("tasks", where=parse_filter({"n": 1})))
OTHER = cohort(Topic("agents"))


@pytest.mark.parametrize(
    ("events", "found"),
    [
        ([event("tasks", key=["a"])], {A, WHOLE, FILTERED}),
        ([event("tasks", key=["c"])], {WHOLE, FILTERED}),
        ([event("tasks", key=["a"]), event("tasks", key=["b"])], {A, B, WHOLE, FILTERED}),
        ([event("tasks", Operation.TRUNCATE)], {A, B, WHOLE, FILTERED}),
        ([event("tasks", Operation.PUBLISH)], {WHOLE, FILTERED}),
        ([event("tasks", key=["a"]), event("agents", key=["a"])], {A, WHOLE, FILTERED, OTHER}),
        ([event("orders", key=["a"])], set()),
        ([], set()),
    ],
)
def test_cohorts_of_other_rows_and_channels_are_not_asked(
    events: Iterable[Event], found: set[Cohort]
) -> None:
    index = SubscriptionIndex()
    for one in (A, B, WHOLE, FILTERED, OTHER):
        index.add(one)

    assert index.cohorts_of(events) == found


def test_nothing_is_kept_of_cohorts_that_were_removed() -> None:
    index = SubscriptionIndex()
    both = cohort(Topic("tasks"), Topic("tasks", "a"), Topic("agents", "a"))
    for one in (both, A, OTHER):
        index.add(one)
    for one in (both, A, OTHER):
        index.remove(one)

    assert index._channels == {}
