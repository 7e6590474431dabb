"""The subscriptions of one client of brain.v1, by their numbers."""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import dataclass

from brain.hub.subscriber import Subscriber
from brain.message.commands import OpenSubscription
from brain.message.condition import Condition
from brain.message.matching import INTERNAL, ReadAccess, Topic
from brain.message.page import PageRequest
from brain.message.topic_handle import TopicHandle
from brain.session.catch_up import CatchUp
from brain.session.subscriptions import Subscriptions


@dataclass(frozen=True, slots=True)
class Straggler:
    """
    A subscription that is behind its connection: it is sent what it missed, or the rows.

    Meanwhile the hub has a subscriber for it alone, on the same transport.
    """

    subscriber: Subscriber
    catch_up: CatchUp


@dataclass(eq=False, slots=True)
class TopicSubscription:
    """One subscription of a client."""

    command: OpenSubscription
    """By which it was asked for."""
    handle: TopicHandle
    straggler: Straggler | None = None
    """None: it is where the connection is."""

    @property
    def where(self) -> Condition:
        """The filter, with the types of its columns."""
        return self.handle.topic.condition


class TopicSubscriptions(Subscriptions):
    """All subscriptions of one client; each is one that it may read."""

    __slots__ = ("_by_number", "_most_numbers")

    def __init__(self, most: int) -> None:
        super().__init__(frozenset(), (), (), most)
        self._most_numbers = most
        self._by_number: dict[int, TopicSubscription] = {}

    def __iter__(self) -> Iterator[TopicSubscription]:
        """Iterate over all of them, also while they are changed."""
        return iter(list(self._by_number.values()))

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for one in self for name in names_of(one.command))

    def find(self, number: int) -> TopicSubscription | None:
        return self._by_number.get(number)

    def has_room(self, topic: Topic) -> bool:
        """Return False if there are too many for one on another topic."""
        is_known = any(one.handle.topic == topic for one in self)
        return is_known or len(self._by_number) < self._most_numbers

    def evaluated(self, others: Set[Topic] = frozenset()) -> int:
        """Return how many values the filters of all of them compare, and those of other topics."""
        topics = {one.handle.topic for one in self} | others
        return sum(topic.evaluated for topic in topics)

    def put(self, subscription: TopicSubscription) -> None:
        self._by_number[subscription.handle.number] = subscription

    def drop(self, subscription: TopicSubscription) -> None:
        self._by_number.pop(subscription.handle.number, None)

    def topics(self, access: ReadAccess, *, with_implied: bool) -> frozenset[Topic]:
        topics = (topic_of(one.command, one.where, access) for one in self)
        return frozenset(topic for topic in topics if topic is not None)

    def live_topics(self) -> frozenset[Topic]:
        """Return the topics of those that are where the connection is."""
        return frozenset(one.handle.topic for one in self if one.straggler is None)


def names_of(command: OpenSubscription) -> tuple[str, ...]:
    """Return the names by which it is decided whether a client may read what it asks for."""
    if command.key is None:
        return (command.channel,)
    return command.channel, f"{command.channel}:{command.key}"


def may_read(command: OpenSubscription, access: ReadAccess) -> bool:
    """Return True if a client may read what it asks for."""
    return not command.channel.startswith(INTERNAL) and any(map(access, names_of(command)))


def topic_of(command: OpenSubscription, where: Condition, access: ReadAccess) -> Topic | None:
    """
    Return the topic that a client asks for; None if it may not read it.

    `where` is its filter with the types of its columns.
    """
    if not may_read(command, access):
        return None
    return Topic(
        command.channel,
        command.key,
        rows=access.rows(command.channel),
        has_number_strings=command.has_number_strings,
        condition=where,
    )


def first_page(command: OpenSubscription, topic: Topic) -> PageRequest:
    """Return the page with which the rows of a topic begin, or the one that has all of them."""
    return PageRequest(
        topic.channel,
        None if topic.rows is None else topic.rows.allowed,
        topic.condition,
        topic.key,
        limit=None if command.is_exact else command.page_rows,
    )
