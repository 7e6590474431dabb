"""Finds what is subscribed to parts of a channel: by the key of a row, or by values of columns."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Generic, NamedTuple, TypeVar

from brain.errors import RowNotShown
from brain.message.event import Event, Operation
from brain.message.json_text import Scalar, key_text, scalar, scalar_in
from brain.message.matching import Match, Topic
from brain.message.row import Row

T = TypeVar("T")

Values = tuple[Scalar, ...]


class Shape(NamedTuple):
    """What a topic compares; columns in alphabetical order."""

    has_key: bool
    columns: tuple[str, ...]
    """Those of a filter."""
    rule_columns: tuple[str, ...]
    """Those of row rules, with the number of the rules as the first."""


class EqualityIndex(Generic[T]):
    """
    Items by the parts of one channel that they are subscribed to.

    There is one dictionary for all topics that compare the same columns. An event costs one look-up
    for each such set of columns, and the number of values and items does not matter. If the rules
    of a topic allow several values of a column, it is under each of them.
    """

    def __init__(self) -> None:
        self._items: dict[Shape, dict[Values, set[T]]] = {}

    def __bool__(self) -> bool:
        return bool(self._items)

    def add(self, topic: Topic, item: T) -> None:
        by_values = self._items.setdefault(shape_of(topic), {})
        for values in compared(topic):
            by_values.setdefault(values, set()).add(item)

    def remove(self, topic: Topic, item: T) -> None:
        shape = shape_of(topic)
        by_values = self._items.get(shape, {})
        for values in compared(topic):
            items = by_values.get(values, set())
            items.discard(item)
            if not items:
                by_values.pop(values, None)
        if not by_values:
            self._items.pop(shape, None)

    def find(self, event: Event, *, by_filter: bool = False) -> Iterator[tuple[Match, set[T]]]:
        """
        Yield the items that `event` concerns, and how.

        An item may come more than once: of the ways, the first one in `Match` holds. With
        `by_filter`, a row also enters what it enters by its filter, and not only by row rules.
        """
        concerns_all = event.operation in (Operation.TRUNCATE, Operation.RESET)
        for shape, by_values in self._items.items():
            if concerns_all:
                for items in by_values.values():
                    yield Match.MATCHES, items
            elif event.is_restricted == bool(shape.rule_columns):
                # Otherwise it was not known whether there are rules: then nothing is sent.
                yield from find_in(by_values, shape, event, by_filter)

    def match(self, event: Event) -> Match | None:
        """Return how `event` concerns any item; None: none of them."""
        found = {match for match, items in self.find(event) if items}
        return next((match for match in Match if match in found), None)


def find_in(
    by_values: dict[Values, set[T]], shape: Shape, event: Event, by_filter: bool
) -> Iterator[tuple[Match, set[T]]]:
    """Yield the items under the values that the row has after the event, or had before."""
    is_update = event.operation is Operation.UPDATE
    rule_values = rules_in(event.rule_values or event.old_rule_values, shape)
    old_rule_values = rules_in(event.old_rule_values, shape) if is_update else rule_values
    after = None if rule_values is None else values_in(event, event.row, shape, rule_values)
    if after is not None and after in by_values:
        items = by_values[after]
        if by_filter and is_update and shape.columns and enters(event, shape):
            yield Match.ENTERS, items
        elif rule_values == old_rule_values:
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


def enters(event: Event, shape: Shape) -> bool:
    """Return True if an updated row had other values in the columns of a filter before."""
    # What is not in the log was too large to be the value of a filter.
    return columns_in(event.former, shape.columns) != columns_in(event.row, shape.columns)


def selects(topic: Topic, key: str, row: Row) -> bool:
    """Return True if a row of the topic's channel, with this key, is part of it, rules apart."""
    if topic.key is not None and topic.key != key_text(key):
        return False
    values = columns_in(row, tuple(name for name, _, _ in topic.where))
    return values == tuple(scalar(value) for _, value, _ in topic.where)


def shape_of(topic: Topic) -> Shape:
    return Shape(
        topic.key is not None,
        tuple(name for name, _, _ in topic.where),
        tuple(name for name, _ in topic.rules),
    )


def compared(topic: Topic) -> Iterator[Values]:
    """Yield all combinations of values that a topic waits for, in the order of its shape."""
    key = () if topic.key is None else (topic.key,)
    where = [scalar(value) for _, value, _ in topic.where]
    for allowed in product(*(values for _, values in topic.rules)):
        yield (*key, *where, *allowed)


def rules_in(text: str | None, shape: Shape) -> Values | None:
    """Return the values of the columns of row rules; None if the event lacks one of them."""
    if not shape.rule_columns:
        return ()
    return None if text is None else columns_in(Row(text), shape.rule_columns)


def values_in(event: Event, row: Row | None, shape: Shape, rule_values: Values) -> Values | None:
    """Return what `event` has in place of a topic's values; None if it has no such row."""
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
