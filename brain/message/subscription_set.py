"""Which events concern a client, by all that it has subscribed to."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from weakref import WeakValueDictionary

from brain.message.event import Event, Operation
from brain.message.filter_index import FilterIndex, FilterIndexStatistics
from brain.message.matching import PRECEDENCE, Match, Topic, is_reset
from brain.message.topic_handle import TopicHandle, topic_handle


class HandleIndex:
    """Finds the topics, with their numbers, that an event concerns."""

    def __init__(self) -> None:
        self._whole: dict[str, set[TopicHandle]] = {}
        self._parts: dict[str, FilterIndex[TopicHandle]] = {}

    def add(self, topic: Topic, handle: TopicHandle) -> None:
        """Add `handle`, to be found by what `topic` says."""
        if topic.is_whole:
            self._whole.setdefault(topic.channel, set()).add(handle)
        else:
            self._parts.setdefault(topic.channel, FilterIndex()).add(topic, handle)

    def remove(self, topic: Topic, handle: TopicHandle) -> None:
        channel = topic.channel
        if topic.is_whole:
            self._whole[channel].discard(handle)
            if not self._whole[channel]:
                del self._whole[channel]
        elif (parts := self._parts.get(channel)) is not None:
            parts.remove(topic, handle)
            # A topic that no row can match is in no index, and keeps none.
            if not parts:
                del self._parts[channel]

    def statistics(self) -> FilterIndexStatistics:
        """Return what the conditions of all channels take."""
        each = [index.statistics() for index in self._parts.values()]
        return FilterIndexStatistics(*map(sum, zip((0, 0, 0, 0), *each, strict=True)))

    def matches(self, event: Event) -> list[tuple[TopicHandle, Match]]:
        """Return each topic that `event` concerns, by its number, and how."""
        found: dict[TopicHandle, Match] = {}
        if not event.is_restricted:
            found = dict.fromkeys(self._whole.get(event.channel, ()), Match.MATCHES)
        parts = self._parts.get(event.channel)
        if parts is not None:
            for match, handles in parts.find(event, by_filter=True):
                for handle in handles:
                    known = found.get(handle)
                    if known is None or PRECEDENCE[match] < PRECEDENCE[known]:
                        found[handle] = match
        if len(found) < 2:
            return list(found.items())
        return sorted(found.items(), key=lambda item: item[0].number)


class SubscriptionSet:
    """All topics of one client. Equal sets are one object, shared by their clients."""

    def __init__(self, topics: frozenset[Topic]) -> None:
        self.topics = topics
        self.channels = frozenset(topic.channel for topic in topics)
        self.rows = {t.channel: t.rows for t in topics if t.rows is not None}
        """Of the channels with row rules, which rows the client may see."""
        self._whole = frozenset(topic.channel for topic in topics if topic.is_whole)
        self._has_conditions = any(topic.has_condition for topic in topics)
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

    def matches(self, event: Event) -> list[tuple[TopicHandle, Match]]:
        """
        Return each topic that `event` concerns, by its number, and how.

        Other than for `match`, an update by which a row begins to match a filter lets it enter.
        """
        index = self._handles if event.recipient is None else self._private_handles
        return index.matches(event)

    def resets(self, event: Event) -> bool:
        """Return True if, after `event`, the client lacks rows of one of these subscriptions."""
        if event.operation is Operation.RESET:
            return event.channel in self.channels and self.match(event) is not None
        if not self._has_conditions:
            return False
        return any(is_reset(event, match) for _, match in self.matches(event))

    @cached_property
    def _parts(self) -> dict[str, FilterIndex[Topic]]:
        """By channel. They are made when they are needed: only some formats need them."""
        parts: dict[str, FilterIndex[Topic]] = {}
        for topic in self.topics:
            if topic.channel not in self._whole:
                parts.setdefault(topic.channel, FilterIndex()).add(topic, topic)
        return parts

    @property
    def handles(self) -> list[TopicHandle]:
        """The topics with their numbers."""
        return [topic_handle(topic) for topic in self.topics]

    @cached_property
    def _handles(self) -> HandleIndex:
        index = HandleIndex()
        for handle in self.handles:
            index.add(handle.topic, handle)
        return index

    @cached_property
    def _private_handles(self) -> HandleIndex:
        """As `_private`."""
        if not self.rows:
            return self._handles
        index = HandleIndex()
        for handle in self.handles:
            index.add(replace(handle.topic, rows=None), handle)
        return index

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
