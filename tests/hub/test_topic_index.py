"""Of clients of brain.v1, each topic is looked up once for all that are subscribed to it."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from brain.hub.cohort import SubscriptionCohort
from brain.hub.hub import Hub
from brain.hub.topic_index import TopicIndex
from brain.message.cursor import Cursor
from brain.message.encodings import encoding_of
from brain.message.equality_index import EqualityIndex
from brain.message.event import Batch, Event
from brain.message.matching import Topic
from brain.message.run import MatchedRun, Run
from brain.message.subscription_encoding import SubscriptionEncoding
from brain.message.subscription_set import subscription_set
from brain.message.v1_format import V1
from brain.transport.websocket_frames import WEBSOCKET_FRAMING
from tests.hub.test_hub import Outgoing
from tests.hub.test_index import random_event, random_subscriptions


def a_cohort(random: Random) -> SubscriptionCohort:
    encoding = encoding_of(V1, WEBSOCKET_FRAMING)
    assert isinstance(encoding, SubscriptionEncoding)
    return SubscriptionCohort(encoding, random_subscriptions(random), 0.0)


def addressed(
    index: TopicIndex, event: Event
) -> dict[SubscriptionCohort, list[tuple[object, object]]]:
    run = MatchedRun(Run((event,)), (event,), index.handles.matches)
    found = index.address((event,), run)
    return {one: [(handle, match) for _, handle, match, _ in each] for one, each in found.items()}


def test_a_cohort_is_addressed_as_its_own_subscriptions_match_also_after_others_left() -> None:
    random = Random(5221)
    index = TopicIndex()
    cohorts = list(
        {one.subscriptions: one for one in (a_cohort(random) for _ in range(60))}.values()
    )
    for one in cohorts:
        index.add(one)
    found = 0
    while cohorts:
        assert index.cohorts() == set(cohorts)
        for _ in range(200):
            event = random_event(random)
            matched = {one: one.subscriptions.matches(event) for one in cohorts}
            assert addressed(index, event) == {one: each for one, each in matched.items() if each}
            found += sum(map(bool, matched.values()))
        for _ in range(min(len(cohorts), random.randint(1, 8))):
            index.remove(cohorts.pop(random.randrange(len(cohorts))))
    assert found > 10_000
    assert not index
    assert addressed(index, random_event(random)) == {}


def test_nothing_is_kept_of_topics_without_subscribers() -> None:
    random = Random(5221)
    index = TopicIndex()
    cohorts = list(
        {one.subscriptions: one for one in (a_cohort(random) for _ in range(20))}.values()
    )
    for one in cohorts:
        index.add(one)
    for one in cohorts:
        index.remove(one)

    assert (index.handles._whole, index.handles._parts) == ({}, {})


def test_a_client_that_changes_one_subscription_has_the_index_look_at_that_one_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    topics = [Topic("orders", str(number)) for number in range(3)]
    hub = Hub(1_000_000, 60)
    hub.deliver(Batch((), Cursor(0, 5)))
    encoding = encoding_of(V1, WEBSOCKET_FRAMING)
    client = hub.subscribe(
        encoding, subscription_set(frozenset(topics[:2])), Outgoing(len), lambda reason: None
    )
    assert hub.resume(client)
    changes = []
    for name in ("add", "remove"):
        change = getattr(EqualityIndex, name)

        def noted(self: Any, lookups: Any, item: Any, change: Any = change) -> None:
            changes.append((change.__name__, lookups[0].key))
            change(self, lookups, item)

        monkeypatch.setattr(EqualityIndex, name, noted)

    hub.change_subscriptions(client, subscription_set(frozenset(topics)))
    hub.change_subscriptions(client, subscription_set(frozenset(topics[1:])))
    assert changes == [("add", "2"), ("remove", "0")]
