"""Finds what is subscribed to parts of a channel: by the key of a row, or by values of columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Generic, NamedTuple, TypeVar

from brain.errors import RowNotShown
from brain.message.event import Event, Operation
from brain.message.json_text import Scalar, scalar_in
from brain.message.lookups import Lookup
from brain.message.matching import Match
from brain.message.row import Row

T = TypeVar("T")

Values = tuple[Scalar, ...]


class Shape(NamedTuple):
    """What a look-up compares; columns in alphabetical order."""

    has_key: bool
    columns: tuple[str, ...]
    """Those of a filter."""
    rule_columns: tuple[str, ...]
    """Those of row rules, with the number of the rules as the first."""


KEY_ALONE = Shape(True, (), ())


class EqualityIndex(Generic[T]):
    """
    Items of one channel by the values that rows have.

    There is one dictionary for all look-ups that compare the same columns. An event costs one
    for each such set of columns, and the number of values and items does not matter. If row rules
    allow several values of a column, an item is under each of them.
    """

    def __init__(self) -> None:
        self._items: dict[Shape, dict[Values, set[T]]] = {}

    def __bool__(self) -> bool:
        return bool(self._items)

    def add(self, lookups: Sequence[Lookup], item: T) -> None:
        """Have an item found under any of some look-ups, which compare the same columns."""
        by_values = self._items.setdefault(shape_of(lookups[0]), {})
        for lookup in lookups:
            for values in compared(lookup):
                by_values.setdefault(values, set()).add(item)

    def remove(self, lookups: Sequence[Lookup], item: T) -> None:
        shape = shape_of(lookups[0])
        by_values = self._items.get(shape, {})
        for lookup in lookups:
            for values in compared(lookup):
                items = by_values.get(values, set())
                items.discard(item)
                if not items:
                    by_values.pop(values, None)
        if not by_values:
            self._items.pop(shape, None)

    def find(self, event: Event) -> Iterator[tuple[Match, set[T]]]:
        """
        Yield the items that `event` concerns, and how.

        An item may come more than once: of the ways, the first one in `Match` holds.
        """
        concerns_all = event.operation in (Operation.TRUNCATE, Operation.RESET)
        for shape, by_values in self._items.items():
            if concerns_all:
                for items in by_values.values():
                    yield Match.MATCHES, items
            elif event.is_restricted != bool(shape.rule_columns):
                continue  # it was not known whether there are rules: then nothing is sent
            elif shape == KEY_ALONE:
                if event.key is not None and (found := by_values.get((event.key_text,))):
                    yield Match.MATCHES, found
            else:
                yield from find_in(by_values, shape, event)


def find_in(
    by_values: dict[Values, set[T]], shape: Shape, event: Event
) -> Iterator[tuple[Match, set[T]]]:
    """Yield the items under the values that the row has after the event, or had before."""
    is_update = event.operation is Operation.UPDATE
    rule_values = rules_in(event.rule_values or event.old_rule_values, shape)
    old_rule_values = rules_in(event.old_rule_values, shape) if is_update else rule_values
    after = None if rule_values is None else values_in(event, event.row, shape, rule_values)
    if after is not None and after in by_values:
        items = by_values[after]
        if rule_values == old_rule_values:
            yield Match.MATCHES, items
        else:
            seen = after[: -len(shape.rule_columns)] + (old_rule_values or ())
            others = by_values.get(seen, set())
            yield Match.MATCHES, items & others
            yield Match.ENTERS, items - others
    if is_update and (shape.columns or shape.rule_columns) and old_rule_values is not None:
        before = values_in(event, event.former, shape, old_rule_values)
        if before is not None and before != after and before in by_values:
            yield Match.LEAVES, by_values[before]


def shape_of(lookup: Lookup) -> Shape:
    return Shape(
        lookup.key is not None,
        tuple(name for name, _ in lookup.columns),
        tuple(name for name, _ in lookup.rules),
    )


def compared(lookup: Lookup) -> Iterator[Values]:
    """Yield all combinations of values that are looked up, in the order of the shape."""
    key = () if lookup.key is None else (lookup.key,)
    columns = [value for _, value in lookup.columns]
    for allowed in product(*(values for _, values in lookup.rules)):
        yield (*key, *columns, *allowed)


def rules_in(text: str | None, shape: Shape) -> Values | None:
    """Return the values of the columns of row rules; None if the event lacks one of them."""
    if not shape.rule_columns:
        return ()
    return None if text is None else columns_in(Row(text), shape.rule_columns)


def values_in(event: Event, row: Row | None, shape: Shape, rule_values: Values) -> Values | None:
    """Return what `event` has in place of looked-up values; None if it has no such row."""
    if shape.has_key and event.key is None:
        return None
    columns = columns_in(row, shape.columns)
    if columns is None:
        return None
    return ((event.key_text,) if shape.has_key else ()) + columns + rule_values


def columns_in(row: Row | None, names: tuple[str, ...]) -> Values | None:
    """Return the values of columns; None if the row lacks one of them."""
    if not names:
        return ()
    values: list[Scalar] = []
    try:
        for name in names:
            if row is None or name not in row:
                return None
            values.append(scalar_in(row.text(name)))
    except RowNotShown:
        return None  # what was published is no object
    return tuple(values)
