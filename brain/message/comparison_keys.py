"""Values of columns in the order in which PostgreSQL compares them, read from the JSON of rows."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from enum import Enum
from functools import cached_property
from typing import Any, Literal

from brain.message.json_text import scalar_in, string_of
from brain.message.row import Row

NOT_FINITE = ("NaN", "Infinity", "-Infinity")
"""Numbers of PostgreSQL that are strings in JSON."""

Kind = Literal[
    "unbound",
    "untyped",
    "number",
    "boolean",
    "text",
    "padded",
    "uuid",
    "enum",
    "date",
    "time",
    "timetz",
    "timestamp",
    "timestamptz",
    "other",
    "json",
]
"""
How the values of a column are compared, as `brain.filter_kind` says.

`unbound`: its type has not been looked up. `untyped`: it has none, as no table is watched on the
channel, and values of messages are equal as in JSON. `text` is compared by code point; of `padded`
texts, spaces at the end do not count. `other` values have texts that are equal or not; `json`
values may be null or not.
"""

Key = Any
"""Of one kind: equal for equal values, and in the order of the values."""


class NoKey(Enum):
    """Why a row has no value of a column to compare."""

    NULL = "null"
    OMITTED = "omitted"
    """It is larger than any value of a filter, or cannot be shown."""
    UNKNOWN = "unknown"
    """The row lacks it for another reason, or has a value of another type."""


@dataclass(frozen=True)
class Column:
    """A column that a condition compares."""

    name: str
    kind: Kind = "unbound"

    @cached_property
    def place(self) -> tuple[str, Kind]:
        """Equal for equal columns; made once, as it is needed for every row."""
        return (self.name, self.kind)


class RowValues:
    """The values of one row, each read when it is first compared."""

    __slots__ = ("_keys", "_omitted", "_row")

    def __init__(self, row: Row, omitted: Container[str] | None) -> None:
        """`omitted`: the columns that the event leaves out; None: all that the row lacks."""
        self._row = row
        self._omitted = omitted
        self._keys: dict[tuple[str, Kind], Key | NoKey] = {}

    def key(self, column: Column) -> Key | NoKey:
        """Return what to compare. Raises `RowNotShown` if the row is no object."""
        found = self._keys.get(column.place)
        if found is None:
            found = self._keys[column.place] = self._read(column)
        return found

    def _read(self, column: Column) -> Key | NoKey:
        if column.name not in self._row:
            is_omitted = self._omitted is None or column.name in self._omitted
            return NoKey.OMITTED if is_omitted else NoKey.UNKNOWN
        text = self._row.text(column.name)
        if text == "null":
            return NoKey.NULL
        try:
            return key_of(column.kind, text)
        except ValueError:
            return NoKey.UNKNOWN


def key_of(kind: Kind, text: str) -> Key:
    """
    Return what to compare of a value, from its JSON text as PostgreSQL writes it.

    Raises `ValueError` if that is no value of the kind.
    """
    return READERS[kind](text)


def number_key(text: str) -> Key:
    """NaN is greater than all other numbers, and equal to itself; -0 is 0."""
    if text[0] == '"':
        text = text[1:-1]
        if text not in NOT_FINITE:
            raise ValueError(f"expected a number, got {text[:20]}")
    try:
        number = Decimal(text)
    except InvalidOperation:
        raise ValueError(f"expected a number, got {text[:20]}") from None
    # By its own rules, NaN equals nothing.
    return (1, 0) if number.is_nan() else (0, number)


def boolean_key(text: str) -> Key:
    if text not in ("true", "false"):
        raise ValueError(f"expected a boolean, got {text[:20]}")
    return text == "true"


def text_key(text: str) -> Key:
    """Python compares strings by code point, as `COLLATE "C"` does in UTF-8."""
    if text[0] != '"':
        raise ValueError(f"expected a string, got {text[:20]}")
    return string_of(text)


def padded_key(text: str) -> Key:
    return text_key(text).rstrip(" ")


def json_key(text: str) -> Key:
    return text


def unbound_key(text: str) -> Key:
    raise TypeError("the types of the columns of a filter have to be looked up first")


DAY = r"(\d{4,})-(\d\d)-(\d\d)"
CLOCK = r"(\d\d):(\d\d):(\d\d)(?:\.(\d{1,6}))?"
DATE = re.compile(rf'"{DAY}( BC)?"', re.ASCII)
TIME = re.compile(rf'"{CLOCK}"', re.ASCII)
TIME_WITH_ZONE = re.compile(rf'"{CLOCK}([+-])(\d\d)(?::(\d\d)(?::(\d\d))?)?"', re.ASCII)
# With a time zone they are in UTC.
TIMESTAMP = re.compile(rf'"{DAY}T{CLOCK}( BC)?"', re.ASCII)
TIMESTAMP_WITH_ZONE = re.compile(rf'"{DAY}T{CLOCK}\+00:00( BC)?"', re.ASCII)
INFINITE: Mapping[str, Key] = {'"infinity"': (1,), '"-infinity"': (-1,)}


def date_key(text: str) -> Key:
    infinite = INFINITE.get(text)
    if infinite is not None:
        return infinite
    return (0, *day_in(*parts(DATE, text)))


def timestamp_key(text: str) -> Key:
    return moment_key(TIMESTAMP, text)


def timestamp_with_zone_key(text: str) -> Key:
    return moment_key(TIMESTAMP_WITH_ZONE, text)


def moment_key(pattern: re.Pattern[str], text: str) -> Key:
    infinite = INFINITE.get(text)
    if infinite is not None:
        return infinite
    year, month, day, hour, minute, second, fraction, era = parts(pattern, text)
    return (0, *day_in(year, month, day, era), microseconds(hour, minute, second, fraction))


def time_key(text: str) -> Key:
    return microseconds(*parts(TIME, text))


def time_with_zone_key(text: str) -> Key:
    """By the moment in UTC, and of equal ones by the time zone, the most eastern one first."""
    *clock, sign, hours, minutes, seconds = parts(TIME_WITH_ZONE, text)
    east = microseconds(hours, minutes or "0", seconds or "0", None)
    offset = east if sign == "+" else -east
    return (microseconds(*clock) - offset, -offset)


def day_in(year: str, month: str, day: str, era: str | None) -> tuple[int, int, int]:
    """The year before the year 1 is 1 BC."""
    return (1 - int(year) if era else int(year), int(month), int(day))


def microseconds(hour: str, minute: str, second: str, fraction: str | None) -> int:
    seconds = (int(hour) * 60 + int(minute)) * 60 + int(second)
    return seconds * 1_000_000 + int((fraction or "").ljust(6, "0"))


def parts(pattern: re.Pattern[str], text: str) -> tuple[Any, ...]:
    found = pattern.fullmatch(text)
    if found is None:
        raise ValueError(f"expected a date or a time, got {text[:40]}")
    return found.groups()


READERS: Mapping[Kind, Callable[[str], Key]] = {
    "unbound": unbound_key,
    "untyped": scalar_in,
    "number": number_key,
    "boolean": boolean_key,
    "text": text_key,
    "padded": padded_key,
    "uuid": text_key,
    "enum": text_key,
    "date": date_key,
    "time": time_key,
    "timetz": time_with_zone_key,
    "timestamp": timestamp_key,
    "timestamptz": timestamp_with_zone_key,
    "other": text_key,
    "json": json_key,
}
