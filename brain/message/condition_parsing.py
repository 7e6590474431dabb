"""
The filter language: JSON that says which rows a client subscribes to.

`{"status": "open", "total": {"gte": 10, "lt": 20}}` is an `and` of its members. A member is a
column with a value, a column with comparisons (`eq`, `neq`, `gt`, `gte`, `lt`, `lte`, `in`, `is`),
or `and` and `or` with a list of filters.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from math import isfinite
from typing import Any

from brain.errors import FilterRefused
from brain.message.comparison_keys import Column
from brain.message.condition import (
    COMPARE,
    Compare,
    Comparison,
    Condition,
    IsNull,
    Operand,
    all_of,
    any_of,
    one_of,
)
from brain.message.json_text import dumps, scalar
from brain.message.matching import SHOWN_CHARACTERS, check_text

MOST_DEPTH = 8
"""Of `and` and `or` in each other."""
MOST_CONDITIONS = 100
MOST_VALUES = 500
"""In all lists of `in` together."""
MOST_BYTES = 32 * 1024
"""Of a filter as JSON, written in the shortest way."""
MOST_DIGITS = 1000
"""Of a number, written without an exponent."""

COMPARISONS: Mapping[str, Comparison] = {name: name for name in COMPARE}
NAMES = ("eq", *COMPARISONS, "in", "is")


def parse_condition(where: Any) -> Condition:
    """
    Return the condition for a decoded filter; its columns have no types yet.

    Filters that say the same are equal. Raises `FilterRefused`.
    """
    condition = Parser().filter(where, 1)
    check_bytes(condition)
    return condition


def check_bytes(condition: Condition) -> None:
    """Raise `FilterRefused` for a filter that is too long."""
    if len(condition.json.encode()) > MOST_BYTES:
        raise FilterRefused(f"where: a filter may have {MOST_BYTES} bytes as JSON")


class Parser:
    """Parses one filter, and counts what is limited."""

    def __init__(self) -> None:
        self._conditions = 0
        self._values = 0

    def filter(self, where: Any, depth: int) -> Condition:
        if not isinstance(where, dict):
            raise FilterRefused("where must be a JSON object of columns and values")
        if depth > MOST_DEPTH + 1:
            raise FilterRefused(too_deep())
        return all_of(part for name in where for part in self._member(name, where[name], depth))

    def _member(self, name: str, value: Any, depth: int) -> Iterator[Condition]:
        if name in ("and", "or") and isinstance(value, list):
            self._count()
            parts = [self.filter(part, depth + 1) for part in value]
            yield all_of(parts) if name == "and" else any_of(parts)
            return
        check("the name of a column", name)
        if not isinstance(value, dict):
            value = {"eq": value}
        elif not value:
            raise FilterRefused(f"where: {shown(name)} has no comparison; {there_are()}")
        for comparison, operand in value.items():
            self._count()
            yield self._comparison(Column(name), comparison, operand)

    def _comparison(self, column: Column, name: str, value: Any) -> Condition:
        match name:
            case "eq":
                return one_of(column, [operand(column, value)])
            case "in":
                return one_of(column, self._listed(column, value))
            case "is":
                if value is not None:
                    raise FilterRefused(f'where: {shown(column.name)}: only {{"is": null}} exists')
                return IsNull(column)
        comparison = COMPARISONS.get(name)
        if comparison is None:
            raise FilterRefused(
                f"where: {shown(column.name)}: there is no comparison {shown(name)}; {there_are()}"
            )
        return Compare(column, comparison, operand(column, value))

    def _listed(self, column: Column, value: Any) -> list[Operand]:
        if not isinstance(value, list):
            raise FilterRefused(f"where: {shown(column.name)}: in needs a list of values")
        self._values += len(value)
        if self._values > MOST_VALUES:
            raise FilterRefused(f"where: the lists of in may have {MOST_VALUES} values together")
        return [operand(column, one) for one in value]

    def _count(self) -> None:
        self._conditions += 1
        if self._conditions > MOST_CONDITIONS:
            raise FilterRefused(f"where: a filter may have {MOST_CONDITIONS} conditions")


def operand(column: Column, value: Any) -> Operand:
    match value:
        case str():
            check(f"the value of {shown(column.name)}", value)
            return Operand(value, dumps(value))
        case bool():
            return Operand(scalar(value), "true" if value else "false")
        case int() | Decimal():
            return number(column, Decimal(value))
        case float() if isfinite(value):
            return number(column, Decimal(repr(value)))
        case None:
            raise FilterRefused(
                f'where: {shown(column.name)}: nothing equals null; write {{"is": null}}'
            )
        case _:
            raise FilterRefused(
                f"where: the value of {shown(column.name)} must be a string, a number or a boolean"
            )


def number(column: Column, value: Decimal) -> Operand:
    if value and not -MOST_DIGITS < value.adjusted() < MOST_DIGITS:
        raise FilterRefused(too_many_digits(column))
    text = plain_number(value)
    if sum(map(str.isdigit, text)) > MOST_DIGITS:
        raise FilterRefused(too_many_digits(column))
    return Operand(Decimal(text), text)


def plain_number(value: Decimal) -> str:
    """Return a number without exponent, and without zeros that say nothing."""
    if not value:
        return "0"
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def check(what: str, text: str) -> None:
    """Raise `FilterRefused` for a text that no column and no value of a filter may be."""
    try:
        check_text(what, text)
    except ValueError as error:
        raise FilterRefused(str(error)) from None
    if "\0" in text:
        raise FilterRefused(f"where: {what} has the character U+0000, which no text has")


def shown(name: str) -> str:
    """Return a client's own text as a reason repeats it: without half of a surrogate pair."""
    return name[:SHOWN_CHARACTERS].encode(errors="replace").decode()


def there_are() -> str:
    return f"there are {', '.join(NAMES)}"


def too_deep() -> str:
    return f"where: and, or may be nested {MOST_DEPTH} deep"


def too_many_digits(column: Column) -> str:
    return f"where: {shown(column.name)}: a number may have {MOST_DIGITS} digits"
