"""What of a channel somebody wants to hear: all of it, one row, or the rows that match a filter."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from itertools import chain
from typing import Any

from brain.message.event import Event, Operation

INTERNAL = "brain."
"""How channels begin that only Brain itself hears."""

Where = tuple[tuple[str, Any, bool], ...]
"""Columns in their order, each with the value that a row must have, and whether that is `true` or
`false`, which Python takes for 1 or 0."""


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

    @property
    def is_whole(self) -> bool:
        return self.key is None and not self.where

    @property
    def anchors(self) -> tuple[Anchor, ...]:
        if self.key is None:
            return (self.channel,)
        return (self.channel, self.key), (self.channel, None)

    def told(self, event: Event) -> Told | None:
        """Return how `event` concerns this topic; None if it does not."""
        if event.channel != self.channel:
            return None
        if self.key is not None and not self._is_about_row(event):
            return None
        if not self.where:
            return Told.AS_IT_IS
        # Once for all who filter by the same.
        if self not in event.told:
            event.told[self] = self._filtered(event)
        told: Told | None = event.told[self]
        return told

    def _is_about_row(self, event: Event) -> bool:
        if event.operation is Operation.PUBLISH:
            return False
        return event.key is None or key_text(event.key) == self.key

    def _filtered(self, event: Event) -> Told | None:
        if event.operation is Operation.TRUNCATE:
            return Told.AS_IT_IS
        if event.operation is Operation.DELETE:
            return Told.AS_IT_IS if self._matches(event.old) else None
        if self._matches(event.data):
            return Told.AS_IT_IS
        is_update = event.operation is Operation.UPDATE and isinstance(event.data, dict)
        if is_update and self._matches({**event.data, **(event.old or {})}):
            return Told.AS_LEAVING
        return None

    def _matches(self, row: Any) -> bool:
        return isinstance(row, dict) and all(
            name in row and row[name] == value and isinstance(row[name], bool) is is_boolean
            for name, value, is_boolean in self.where
        )


def where_of(columns: Any) -> Where:
    """
    Return the filter that an object of columns and values means.

    Raises `ValueError` for what is no such object: the values are texts, numbers, booleans or null.
    """
    if not isinstance(columns, dict):
        raise ValueError("where must be a JSON object of columns and values")
    if not all(value is None or isinstance(value, str | int | float) for value in columns.values()):
        raise ValueError("a value in where must be a text, a number, a boolean or null")
    return tuple((name, columns[name], isinstance(columns[name], bool)) for name in sorted(columns))


def key_text(key: Iterable[Any]) -> str:
    return ":".join(map(str, key))


def topics_of(name: str, where: Where, may_hear: Callable[[str], bool]) -> frozenset[Topic]:
    """
    Return what is meant by a name that a client gave, as far as it may be heard.

    `tasks:task-123` is the row `task-123` of `tasks`; it may as well be the name of a channel. Who
    may hear the channel `tasks` may hear its rows.
    """
    channel, separator, key = name.partition(":")
    if name.startswith(INTERNAL):
        return frozenset()
    topics = set()
    if may_hear(name):
        topics.add(Topic(name, where=where))
    if separator and (may_hear(name) or may_hear(channel)):
        topics.add(Topic(channel, key, where))
    return frozenset(topics)


Anchor = str | tuple[str, str | None]
"""A channel; or a row of one, None for what concerns all of its rows."""


class Interest:
    """All that somebody wants to hear. Equal if it is the same, and kept once for all."""

    def __init__(self, topics: frozenset[Topic]) -> None:
        self.topics = topics
        self.channels = frozenset(topic.channel for topic in topics)
        self.anchors = frozenset(chain.from_iterable(topic.anchors for topic in topics))
        """Where an event is looked up to find whom it may concern: see `anchors_of`."""
        self._whole = frozenset(topic.channel for topic in topics if topic.is_whole)
        self._parts: dict[str, list[Topic]] = {}
        for topic in topics:
            if topic.channel not in self._whole:
                self._parts.setdefault(topic.channel, []).append(topic)

    def told(self, event: Event) -> Told | None:
        """Return how those are told of `event` who have this interest; None if they are not."""
        if event.channel in self._whole:
            return Told.AS_IT_IS
        found = {topic.told(event) for topic in self._parts.get(event.channel, ())}
        if Told.AS_IT_IS in found:
            return Told.AS_IT_IS
        return Told.AS_LEAVING if Told.AS_LEAVING in found else None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Interest) and self.topics == other.topics

    def __hash__(self) -> int:
        return hash(self.topics)


@lru_cache(maxsize=4096)
def interest_in(topics: frozenset[Topic]) -> Interest:
    """Return one for all who are interested in the same."""
    return Interest(topics)


def anchors_of(event: Event) -> tuple[Anchor, ...]:
    """Return where those are found whom `event` may concern."""
    if event.operation is Operation.PUBLISH:
        return (event.channel,)
    row = None if event.key is None else key_text(event.key)
    return event.channel, (event.channel, row)
