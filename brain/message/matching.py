"""Which events a subscription matches: a whole channel, one row of it, or rows by a filter."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from enum import Enum
from math import isfinite
from typing import Any
from weakref import WeakValueDictionary

from brain.errors import RowNotShown
from brain.message.event import Event, Operation
from brain.message.json_text import equals, is_unicode
from brain.message.row import Row

INTERNAL = "brain."
"""The prefix of channels that no client may read."""

LONGEST_TEXT = 1000
"""Of a name or a string in a filter, in characters. Columns that may be omitted are longer."""
SHOWN_CHARACTERS = 50
"""Of a client's own text in the reason why it is refused."""

FilterValue = str | int | Decimal | bool | None
Filter = tuple[tuple[str, FilterValue, bool], ...]
"""Columns in alphabetical order, each with the value that a row must have, and whether that is
`true` or `false`, which equal 1 and 0 in Python."""

NOT_YET = object()
"""In place of the result for an event that was not matched yet."""


class Match(Enum):
    """How an event concerns a subscription."""

    MATCHES = "matches"
    LEAVES = "leaves"
    """The row matched the filter before the event, and does not after it."""


@dataclass(frozen=True, slots=True)
class Topic:
    """A part of a channel; without a key and a filter, all of it."""

    channel: str
    key: str | None = None
    """That of one row, as `key_text` returns it."""
    where: Filter = ()

    @property
    def is_whole(self) -> bool:
        return self.key is None and not self.where

    def match(self, event: Event) -> Match | None:
        """Return how `event` concerns this topic; None: not at all."""
        if event.channel != self.channel:
            return None
        if self.key is not None and not self._is_about_row(event):
            return None
        if not self.where:
            return Match.MATCHES
        # Once for all subscriptions with an equal filter.
        match: Match | None = event.matches.get(self, NOT_YET)
        if match is NOT_YET:
            match = event.matches[self] = self._filtered(event)
        return match

    def _is_about_row(self, event: Event) -> bool:
        if event.operation is Operation.PUBLISH:
            return False
        return event.key is None or event.key_text == self.key

    def _filtered(self, event: Event) -> Match | None:
        if event.operation in (Operation.TRUNCATE, Operation.RESET):
            return Match.MATCHES
        if self._matches(event.row):
            return Match.MATCHES
        if event.operation is Operation.UPDATE and self._matches(event.former):
            return Match.LEAVES
        return None

    def _matches(self, row: Row | None) -> bool:
        """Return True if every column has its value; an omitted one is longer than any of them."""
        if row is None:
            return False
        try:
            return all(
                name in row and equals(row.text(name), value) for name, value, _ in self.where
            )
        except RowNotShown:
            return False  # what was published is no object


def parse_filter(columns: Any) -> Filter:
    """
    Return the filter for a JSON object of columns and values.

    Raises `ValueError` unless the values are strings, numbers, booleans or null, and all texts have
    at most `LONGEST_TEXT` characters and are Unicode.
    """
    if not isinstance(columns, dict):
        raise ValueError("where must be a JSON object of columns and values")
    for name in columns:
        check_text("the name of a column", name)
    return tuple(
        (name, filter_value(name, columns[name]), isinstance(columns[name], bool))
        for name in sorted(columns)
    )


def filter_value(name: str, value: Any) -> FilterValue:
    match value:
        case str():
            check_text(f"the value of {name[:SHOWN_CHARACTERS]}", value)
            return value
        case None | bool() | int() | Decimal():
            return value
        case float() if isfinite(value):
            return Decimal(repr(value))
        case _:
            raise ValueError("where: a value must be a string, a number, a boolean or null")


def check_text(what: str, text: str) -> None:
    """Raise `ValueError` for a text that no filter needs, or that no answer could repeat."""
    if len(text) > LONGEST_TEXT:
        raise ValueError(f"where: {what} has more than {LONGEST_TEXT} characters")
    if not is_unicode(text):
        raise ValueError(f"where: {what} has half of a surrogate pair")


def filter_json(text: str) -> Any:
    """
    Return the value of a JSON text that has a filter in it, with all digits of its numbers.

    Raises `ValueError`, and `RecursionError` if it is nested too deep.
    """
    return json.loads(text, parse_float=exact_number, parse_int=exact_integer)


def exact_integer(text: str) -> int | Decimal:
    # Python refuses to convert thousands of digits to an int.
    return int(text) if len(text) < 1000 else Decimal(text)


def exact_number(text: str) -> Decimal:
    """Return a number in the JSON of a filter, with all its digits. Raises `ValueError`."""
    try:
        return Decimal(text)
    except InvalidOperation:
        raise ValueError("where: the exponent of a number is too large") from None


def requested_topics(name: str, where: Filter, may_read: Callable[[str], bool]) -> frozenset[Topic]:
    """
    Return the topics that a client requests by `name`, as far as it may read them.

    `tasks:task-123` is the row `task-123` of `tasks`, and may be the name of a channel as well. The
    right to read the channel `tasks` includes its rows.
    """
    channel, separator, key = name.partition(":")
    if name.startswith(INTERNAL):
        return frozenset()
    topics = set()
    if may_read(name):
        topics.add(Topic(name, where=where))
    if separator and (may_read(name) or may_read(channel)):
        topics.add(Topic(channel, key, where))
    return frozenset(topics)


class SubscriptionSet:
    """All topics of one client. Equal sets are one object, shared by their clients."""

    def __init__(self, topics: frozenset[Topic]) -> None:
        self.topics = topics
        self.channels = frozenset(topic.channel for topic in topics)
        self._whole = frozenset(topic.channel for topic in topics if topic.is_whole)
        self._parts: dict[str, list[Topic]] = {}
        for topic in topics:
            if topic.channel not in self._whole:
                self._parts.setdefault(topic.channel, []).append(topic)

    def match(self, event: Event) -> Match | None:
        """Return how `event` concerns these subscriptions; None: not at all."""
        if event.channel in self._whole:
            return Match.MATCHES
        found = {topic.match(event) for topic in self._parts.get(event.channel, ())}
        if Match.MATCHES in found:
            return Match.MATCHES
        return Match.LEAVES if Match.LEAVES in found else None

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
