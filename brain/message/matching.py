"""What a client subscribes to: a whole channel, one row of it, or rows by a filter."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from enum import Enum
from functools import cached_property
from math import isfinite, prod
from typing import Any, Protocol

from brain.message.condition import EVERYTHING, Condition
from brain.message.event import Event, Operation
from brain.message.json_text import (
    is_unicode,
    scalar,
    scalar_in,
    split_array,
    split_object,
    text_of,
)
from brain.message.lookups import Lookup, Rules, cost_of, split

INTERNAL = "brain."
"""The prefix of channels that no client may read."""

LONGEST_TEXT = 1000
"""Of a name or a string in a filter, in characters. Columns that may be omitted are longer."""
MOST_COMBINATIONS = 10_000
"""Of values, under which all topics of a client are found: some megabytes."""
TOO_MANY_COMBINATIONS = "too many subscriptions for the rows that the token allows"
SHOWN_CHARACTERS = 50
"""Of a client's own text in the reason why it is refused."""

FilterValue = str | int | Decimal | bool | None
Filter = tuple[tuple[str, FilterValue, bool], ...]
"""Columns in alphabetical order, each with the value that a row must have, and whether that is
`true` or `false`, which equal 1 and 0 in Python."""


class Match(Enum):
    """How an event concerns a subscription."""

    MATCHES = "matches"
    ENTERS = "enters"
    """The client could not see the row before the event."""
    UNDECIDED = "undecided"
    """The event does not say whether the row matches: the client has to load it again."""
    LEAVES = "leaves"
    """The row matched the filter and the row rules before the event, and does not after it."""

    # That of `Enum` is a Python function, and members are keys for every event.
    __hash__ = object.__hash__


PRECEDENCE = {match: place for place, match in enumerate(Match)}
"""Of the ways in which an event concerns the same, the first one holds."""


def is_reset(event: Event, match: Match) -> bool:
    """Return True if a client that `event` concerns so lacks rows after it, until it loads them."""
    return event.operation is Operation.RESET or match is Match.UNDECIDED


@dataclass(frozen=True)
class RowAccess:
    """Which rows of a channel with row rules a client may see."""

    allowed: str
    """As JSON, {"": [3], "customer_id": [7, 8]}: the number of the rules, and the values of each
    column; the number alone: all rows."""

    @cached_property
    def rules(self) -> Rules:
        """The columns, in alphabetical order, with the values of each."""
        return tuple(
            (name, frozenset(scalar_in(text_of(value)) for value in split_array(text_of(values))))
            for name, values in sorted(split_object(self.allowed).items())
        )

    @property
    def combinations(self) -> int:
        """How many combinations of those values there are: a client is found under each."""
        return prod(len(values) for _, values in self.rules)


@dataclass(frozen=True, slots=True)
class Topic:
    """A part of a channel; without a key and a filter, all of it."""

    channel: str
    key: str | None = None
    """That of one row, as `key_text` returns it."""
    where: Filter = ()
    """Values that its rows have, compared as JSON has them."""
    rows: RowAccess | None = None
    """Those that the client may see of a channel with row rules; None: it has no rules."""
    has_number_strings: bool = False
    """True if numbers that a double does not hold are sent as strings, in brain.v1."""
    condition: Condition = EVERYTHING
    """What its rows match, too, with the types of their columns; that of a filter in brain.v1."""

    @property
    def is_whole(self) -> bool:
        return self.key is None and not self.where and not self.rules and not self.has_condition

    @property
    def has_condition(self) -> bool:
        return self.condition != EVERYTHING

    @property
    def rules(self) -> Rules:
        return () if self.rows is None else self.rows.rules

    @property
    def lookups(self) -> list[Lookup]:
        """The values under which it is found, as far as they can be looked up; at least one."""
        columns = tuple((name, scalar(value)) for name, value, _ in self.where)
        alternatives = split(self.condition).alternatives
        return [Lookup(self.key, columns + one, self.rules) for one in alternatives]

    @property
    def combinations(self) -> int:
        """Under how many combinations of values it is found: each takes memory."""
        by_rows = 1 if self.rows is None else self.rows.combinations
        return by_rows * cost_of(self.condition).alternatives if self.has_condition else by_rows

    @property
    def evaluated(self) -> int:
        """How many values are compared to evaluate what cannot be looked up: each takes time."""
        return cost_of(self.condition).evaluated


def has_too_many_combinations(topics: Iterable[Topic]) -> bool:
    """Return True if one client with all these topics would take too much memory."""
    return sum(topic.combinations for topic in topics) > MOST_COMBINATIONS


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


class ReadAccess(Protocol):
    """What an identity may read."""

    def __call__(self, name: str) -> bool:
        """Return True if it may read the channel, or row of a channel, that is named."""
        ...

    def rows(self, channel: str) -> RowAccess | None:
        """Return which rows of a channel it may see; None if the channel has no row rules."""
        ...


def requested_topics(name: str, where: Filter, access: ReadAccess) -> frozenset[Topic]:
    """
    Return the topics that a client requests by `name`, as far as `access` lets it read them.

    `tasks:task-123` is the row `task-123` of `tasks`, and may be the name of a channel as well. The
    right to read the channel `tasks` includes its rows.
    """
    channel, separator, key = name.partition(":")
    if name.startswith(INTERNAL):
        return frozenset()
    topics = set()
    if access(name):
        topics.add(Topic(name, where=where, rows=access.rows(name)))
    if separator and (access(name) or access(channel)):
        topics.add(Topic(channel, key, where, access.rows(channel)))
    return frozenset(topics)
