"""The part of a condition that can be looked up: values of columns of which a row must have one."""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

from brain.message.condition import All, Condition, IsNull, OneOf, all_of
from brain.message.json_text import Scalar, scalar_in

MOST_ALTERNATIVES = 100
"""Combinations of values under which a filter is looked up; what would make more is evaluated."""

ColumnValues = tuple[tuple[str, Scalar], ...]
"""Columns in alphabetical order, each with the value that a row must have."""
Rules = tuple[tuple[str, frozenset[Scalar]], ...]
"""The columns of row rules in alphabetical order, each with the values that a row may have."""


class Lookup(NamedTuple):
    """Under which values something is found."""

    key: str | None
    """That of one row, as `key_text` returns it; None: all rows."""
    columns: ColumnValues
    rules: Rules


class Parts(NamedTuple):
    """A condition in two parts, which both have to hold."""

    alternatives: list[ColumnValues]
    """A row has the values of one of these."""
    rest: Condition
    """What has to be evaluated."""


def split(where: Condition) -> Parts:
    """Return what of a condition can be looked up, and what remains."""
    looked_up: list[list[tuple[str, Scalar]]] = []
    rest: list[Condition] = []
    combinations = 1
    parts = where.parts if isinstance(where, All) else (where,)
    for part in sorted(parts, key=lambda part: (part.size, part.json)):
        choices = equal_to(part)
        if choices and combinations * len(choices) <= MOST_ALTERNATIVES:
            combinations *= len(choices)
            looked_up.append(choices)
        else:
            rest.append(part)
    alternatives = [tuple(sorted(one, key=lambda value: value[0])) for one in product(*looked_up)]
    return Parts(alternatives, all_of(rest))


def equal_to(part: Condition) -> list[tuple[str, Scalar]]:
    """Return the values of which a row must have one; none if they cannot be looked up."""
    match part:
        case IsNull(column):
            return [(column.name, None)]
        case OneOf(column, operands) if column.kind != "padded":
            return [(column.name, scalar_in(operand.json)) for operand in operands]
        case _:
            return []
