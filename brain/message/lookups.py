"""The part of a condition that can be looked up: values of columns of which a row must have one."""

from __future__ import annotations

from itertools import product
from math import prod
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


class Cost(NamedTuple):
    """What a condition takes."""

    alternatives: int
    """Under how many it is found: each takes memory."""
    evaluated: int
    """How many values are compared to evaluate what remains: each takes time."""


Chosen = IsNull | OneOf


def split(where: Condition) -> Parts:
    """Return what of a condition can be looked up, and what remains."""
    chosen, rest = divided(where)
    choices = sorted(map(values_of, chosen), key=lambda values: values[0][0])
    return Parts(list(product(*choices)), all_of(rest))


def cost_of(where: Condition) -> Cost:
    """Return what the parts of a condition take, without making them."""
    chosen, rest = divided(where)
    return Cost(prod(part.size for part in chosen), sum(part.size for part in rest))


def divided(where: Condition) -> tuple[list[Chosen], list[Condition]]:
    """Return the parts of a condition that are looked up, and the others."""
    chosen: list[Chosen] = []
    rest: list[Condition] = []
    combinations = 1
    parts = where.parts if isinstance(where, All) else (where,)
    for part in sorted(parts, key=lambda part: (part.size, part.json)):
        is_padded = isinstance(part, OneOf) and part.column.kind == "padded"
        fits = combinations * part.size <= MOST_ALTERNATIVES
        if isinstance(part, IsNull | OneOf) and fits and not is_padded:
            combinations *= part.size
            chosen.append(part)
        else:
            rest.append(part)
    return chosen, rest


def values_of(part: Chosen) -> list[tuple[str, Scalar]]:
    """Return the values of which a row must have one."""
    if isinstance(part, IsNull):
        return [(part.column.name, None)]
    return [(part.column.name, scalar_in(operand.json)) for operand in part.operands]
