"""
The conditions of a filter, as an immutable tree in one form for each meaning.

A comparison with null is neither true nor false in SQL, and matches nothing. As nothing negates a
condition, that is the same as false here. What a row lacks is another matter: then the verdict is
None, and the client has to load the row again.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Literal

from brain.message.comparison_keys import Column, Key, NoKey, RowValues
from brain.message.json_text import dumps

Verdict = bool | None
"""Whether a row matches; None: its values do not say."""

Comparison = Literal["neq", "gt", "gte", "lt", "lte"]
COMPARE: Mapping[Comparison, Callable[[Any, Any], bool]] = {
    "neq": operator.ne,
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
}


@dataclass(frozen=True)
class Operand:
    """A value that a column is compared with."""

    key: Key
    json: str = field(compare=False)
    """As JSON; of equal operands of a bound column it is the same."""


@dataclass(frozen=True)
class IsNull:
    column: Column

    def verdict(self, values: RowValues) -> Verdict:
        key = values.key(self.column)
        return None if key is NoKey.UNKNOWN else key is NoKey.NULL

    @property
    def size(self) -> int:
        return 1

    @cached_property
    def json(self) -> str:
        return comparison_json(self.column, "is", "null")


@dataclass(frozen=True)
class OneOf:
    """The column has one of these values: `eq` and `in`."""

    column: Column
    operands: frozenset[Operand]

    @cached_property
    def keys(self) -> frozenset[Key]:
        return frozenset(operand.key for operand in self.operands)

    def verdict(self, values: RowValues) -> Verdict:
        key = values.key(self.column)
        if isinstance(key, NoKey):
            return None if key is NoKey.UNKNOWN else False
        return key in self.keys

    @property
    def size(self) -> int:
        return len(self.operands)

    @cached_property
    def json(self) -> str:
        texts = sorted(operand.json for operand in self.operands)
        if len(texts) == 1:
            return comparison_json(self.column, "eq", texts[0])
        return comparison_json(self.column, "in", f"[{','.join(texts)}]")


@dataclass(frozen=True)
class Compare:
    column: Column
    comparison: Comparison
    operand: Operand

    @cached_property
    def _compare(self) -> Callable[[Any, Any], bool]:
        return COMPARE[self.comparison]

    def verdict(self, values: RowValues) -> Verdict:
        key = values.key(self.column)
        if type(key) is not NoKey:
            return self._compare(key, self.operand.key)
        if key is NoKey.NULL:
            return False
        # A value that is too large differs. One of another type might be omitted because it cannot
        # be shown, and such a value is compared with nothing in SQL.
        is_too_large = key is NoKey.OMITTED and self.column.kind != "other"
        return True if is_too_large and self.comparison == "neq" else None

    @property
    def size(self) -> int:
        return 1

    @cached_property
    def json(self) -> str:
        return comparison_json(self.column, self.comparison, self.operand.json)


@dataclass(frozen=True)
class Combination:
    """Parts that are combined by `and` or `or`."""

    parts: frozenset[Condition]
    name: ClassVar[str]
    neutral: ClassVar[bool]
    """The verdict without parts; a part with the other one decides."""

    def verdict(self, values: RowValues) -> Verdict:
        neutral = self.neutral
        found: Verdict = neutral
        for part in self.parts:
            verdict = part.verdict(values)
            if verdict is None:
                found = None
            elif verdict is not neutral:
                return verdict
        return found

    @property
    def size(self) -> int:
        return sum(part.size for part in self.parts)

    @cached_property
    def json(self) -> str:
        texts = sorted(part.json for part in self.parts)
        return f'{{"{self.name}":[{",".join(texts)}]}}'


class All(Combination):
    """Every part holds; without parts it matches every row."""

    name = "and"
    neutral = True


class Either(Combination):
    """One part holds at least; without parts it matches no row."""

    name = "or"
    neutral = False


Condition = IsNull | OneOf | Compare | All | Either

EVERYTHING = All(frozenset())
NOTHING = Either(frozenset())


def one_of(column: Column, operands: Iterable[Operand]) -> Condition:
    found = frozenset(operands)
    return OneOf(column, found) if found else NOTHING


def all_of(parts: Iterable[Condition]) -> Condition:
    """Return the condition that all of these hold."""
    flat = flattened(parts, All, operator.and_)
    if NOTHING in flat:
        return NOTHING
    return flat.pop() if len(flat) == 1 else All(frozenset(flat))


def any_of(parts: Iterable[Condition]) -> Condition:
    """Return the condition that one of these holds."""
    flat = flattened(parts, Either, operator.or_)
    if EVERYTHING in flat:
        return EVERYTHING
    return flat.pop() if len(flat) == 1 else Either(frozenset(flat))


def flattened(
    parts: Iterable[Condition],
    kind: type[All | Either],
    merge: Callable[[frozenset[Operand], frozenset[Operand]], frozenset[Operand]],
) -> set[Condition]:
    """Return parts without those of the same kind in each other, and one list for each column."""
    flat: set[Condition] = set()
    listed: dict[Column, frozenset[Operand]] = {}
    for part in parts:
        for one in part.parts if isinstance(part, kind) else (part,):
            if isinstance(one, OneOf):
                listed[one.column] = merge(listed.get(one.column, one.operands), one.operands)
            else:
                flat.add(one)
    flat.update(one_of(column, operands) for column, operands in listed.items())
    return flat


def comparison_json(column: Column, name: str, operand: str) -> str:
    return f'{{{dumps(column.name)}:{{"{name}":{operand}}}}}'
