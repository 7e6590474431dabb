"""Which events concern a client, by all that it has subscribed to."""

from __future__ import annotations

from weakref import WeakValueDictionary

from brain.message.equality_index import EqualityIndex
from brain.message.event import Event
from brain.message.matching import Match, Topic


class SubscriptionSet:
    """All topics of one client. Equal sets are one object, shared by their clients."""

    def __init__(self, topics: frozenset[Topic]) -> None:
        self.topics = topics
        self.channels = frozenset(topic.channel for topic in topics)
        self._whole = frozenset(topic.channel for topic in topics if topic.is_whole)
        self._parts: dict[str, EqualityIndex[Topic]] = {}
        for topic in topics:
            if topic.channel not in self._whole:
                self._parts.setdefault(topic.channel, EqualityIndex()).add(topic, topic)

    def match(self, event: Event) -> Match | None:
        """Return how `event` concerns these subscriptions; None: not at all."""
        if event.channel in self._whole:
            return Match.MATCHES
        parts = self._parts.get(event.channel)
        return None if parts is None else parts.match(event)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SubscriptionSet) and self.topics == other.topics

    def __hash__(self) -> int:
        return hash(self.topics)


SETS: WeakValueDictionary[frozenset[Topic], SubscriptionSet] = WeakValueDictionary()
"""Those of the clients that are there: a set goes with the last client that has it."""


def subscription_set(topics: frozenset[Topic]) -> SubscriptionSet:
    """Return the one set for all clients with these topics."""
    found = SETS.get(topics)
    if found is None:
        found = SETS[topics] = SubscriptionSet(topics)
    return found
