"""What a client subscribes to: a whole channel, one row of it, or rows by a filter."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from enum import Enum
from math import isfinite
from typing import Any

from brain.message.json_text import is_unicode

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
