"""What of a channel somebody wants to hear: all of it, one row, or the rows that match a filter."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from brain.message.event import Event, Operation

Where = tuple[tuple[str, Any], ...]
"""Columns in their order, each with the value that a row must have there."""


class Told(Enum):
    """How a subscription hears of an event."""

    AS_IT_IS = "as it is"
    AS_LEAVING = "as leaving"
    """The row matched before, and does not any more."""


@dataclass(frozen=True, slots=True)
class Topic:
    """One part of a channel; without a key and a filter, all of it."""

    channel: str
    key: str | None = None
    """Of one row, as text: the values of its primary key, with `:` between them."""
    where: Where = ()

    def told(self, event: Event) -> Told | None:
        """Return how `event` concerns this topic; None if it does not."""
        if event.channel != self.channel:
            return None
        if self.key is not None and event.key is not None and key_text(event.key) != self.key:
            return None
        if self.key is not None and event.operation is Operation.PUBLISH:
            return None
        if not self.where:
            return Told.AS_IT_IS
        # Once for all who filter by the same.
        if self not in event.told:
            event.told[self] = self._filtered(event)
        told: Told | None = event.told[self]
        return told

    def _filtered(self, event: Event) -> Told | None:
        if event.operation is Operation.TRUNCATE:
            return Told.AS_IT_IS
        if event.operation is Operation.DELETE:
            return Told.AS_IT_IS if self._matches(event.old) else None
        if self._matches(event.data):
            return Told.AS_IT_IS
        if event.operation is Operation.UPDATE and isinstance(event.data, dict):
            if self._matches({**event.data, **(event.old or {})}):
                return Told.AS_LEAVING
        return None

    def _matches(self, row: Any) -> bool:
        return isinstance(row, dict) and all(
            name in row and is_same(row[name], value) for name, value in self.where
        )


def is_same(one: Any, other: Any) -> bool:
    """Whether two values of JSON are equal; `true` is no 1."""
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def key_text(key: Iterable[Any]) -> str:
    return ":".join(map(str, key))


def topics_of(name: str, where: Where, may_hear: Callable[[str], bool]) -> frozenset[Topic]:
    """
    Return what is meant by a name that a client gave, as far as it may be heard.

    `tasks:task-123` is the row `task-123` of `tasks`; it may as well be the name of a channel. Who
    may hear the channel `tasks` may hear its rows.
    """
    channel, separator, key = name.partition(":")
    topics = set()
    if may_hear(name):
        topics.add(Topic(name, where=where))
    if separator and (may_hear(name) or may_hear(channel)):
        topics.add(Topic(channel, key, where))
    return frozenset(topics)


def told_to(topics: Iterable[Topic], event: Event) -> Told | None:
    """Return how those who want to hear `topics` are told of `event`; None if they are not."""
    found = {topic.told(event) for topic in topics}
    if Told.AS_IT_IS in found:
        return Told.AS_IT_IS
    return Told.AS_LEAVING if Told.AS_LEAVING in found else None
