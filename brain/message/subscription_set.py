"""Which events concern a client, by all that it has subscribed to."""

from __future__ import annotations

from dataclasses import replace
from weakref import WeakValueDictionary

from brain.message.equality_index import EqualityIndex
from brain.message.event import Event
from brain.message.matching import Match, Topic


class SubscriptionSet:
    """All topics of one client. Equal sets are one object, shared by their clients."""

    def __init__(self, topics: frozenset[Topic]) -> None:
        self.topics = topics
        self.channels = frozenset(topic.channel for topic in topics)
        self.rows = {t.channel: t.rows for t in topics if t.rows is not None}
        """Of the channels with row rules, which rows the client may see."""
        self._whole = frozenset(topic.channel for topic in topics if topic.is_whole)
        self._parts: dict[str, EqualityIndex[Topic]] = {}
        for topic in topics:
            if topic.channel not in self._whole:
                self._parts.setdefault(topic.channel, EqualityIndex()).add(topic, topic)
        self._private: SubscriptionSet | None = None
        """Without row rules: messages to this user alone are not restricted by them."""
        if self.rows:
            self._private = SubscriptionSet(frozenset(replace(t, rows=None) for t in topics))

    def match(self, event: Event) -> Match | None:
        """Return how `event` concerns these subscriptions; None: not at all."""
        if self._private is not None and event.recipient is not None:
            return self._private.match(event)
        if event.channel in self._whole:
            # It may not be known here yet that there are rules: then nothing is sent.
            return None if event.is_restricted else Match.MATCHES
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
