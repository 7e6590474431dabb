"""Gives conditions the types of columns, and values as PostgreSQL writes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from brain.errors import FilterRefused
from brain.message.comparison_keys import Column, Kind, key_of
from brain.message.condition import (
    All,
    Compare,
    Condition,
    Either,
    IsNull,
    OneOf,
    Operand,
    all_of,
    any_of,
    one_of,
)
from brain.message.condition_parsing import MOST_VALUES, plain_number
from brain.message.json_text import dumps, string_of

Comparison = IsNull | OneOf | Compare


class Meaning(NamedTuple):
    """What a comparison is for a table."""

    kind: Kind
    """Of its column."""
    operands: Sequence[str]
    """JSON texts, as events have them; for the order of an enum, the labels that match."""


def comparisons(condition: Condition) -> Iterator[Comparison]:
    """Yield all comparisons of a condition."""
    match condition:
        case All(parts) | Either(parts):
            for part in parts:
                yield from comparisons(part)
        case IsNull() | OneOf() | Compare():
            yield condition


def comparison_name(comparison: Comparison) -> str:
    """Return the word for a comparison in the filter language."""
    match comparison:
        case IsNull():
            return "is"
        case OneOf():
            return "in"
        case Compare():
            return comparison.comparison


def operands_of(comparison: Comparison) -> list[str]:
    """Return the JSON texts of the values that a column is compared with."""
    match comparison:
        case IsNull():
            return []
        case OneOf():
            return [operand.json for operand in comparison.operands]
        case Compare():
            return [comparison.operand.json]


def compared_with(comparison: Comparison) -> str:
    """Return what a column is compared with, as JSON."""
    match comparison:
        case IsNull():
            return "null"
        case OneOf():
            return f"[{','.join(operands_of(comparison))}]"
        case Compare():
            return comparison.operand.json


def bound(condition: Condition, meanings: Mapping[Comparison, Meaning]) -> Condition:
    """Return a condition with what each of its comparisons means. Raises `FilterRefused`."""
    match condition:
        case All(parts):
            return all_of(bound(part, meanings) for part in parts)
        case Either(parts):
            return any_of(bound(part, meanings) for part in parts)
        case IsNull() | OneOf() | Compare():
            return bound_comparison(condition, meanings[condition])


def untyped(channel: str, condition: Condition) -> Condition:
    """Return a condition for a channel without a table: equality. Raises `FilterRefused`."""
    meanings = {}
    for one in comparisons(condition):
        if isinstance(one, Compare) and one.comparison != "neq":
            raise FilterRefused(
                f"where: {one.column.name}: {one.comparison} needs the type of a column, and no"
                f" table is watched on {channel}; there are eq, neq, in, is"
            )
        meanings[one] = Meaning("untyped", operands_of(one))
    return bound(condition, meanings)


def bound_comparison(comparison: Comparison, meaning: Meaning) -> Condition:
    column = Column(comparison.column.name, meaning.kind)
    operands = [bound_operand(meaning.kind, text) for text in meaning.operands]
    match comparison:
        case IsNull():
            return IsNull(column)
        case OneOf():
            return one_of(column, operands)
        case Compare() if meaning.kind == "enum" and comparison.comparison != "neq":
            if len(operands) > MOST_VALUES:
                raise FilterRefused(
                    f"where: {column.name}: more than {MOST_VALUES} labels of its type match"
                )
            return one_of(column, operands)
        case Compare():
            return replace(comparison, column=column, operand=operands[0])


def bound_operand(kind: Kind, text: str) -> Operand:
    """Return a value that PostgreSQL has written; equal ones are written alike."""
    key = key_of(kind, text)
    if text[0] == '"':
        text = dumps(string_of(text))
    elif kind == "number":
        text = plain_number(key[1])
    return Operand(key, text)
