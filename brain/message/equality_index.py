"""Finds what is subscribed to parts of a channel: by the key of a row, or by values of columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, NamedTuple, TypeVar

from brain.errors import RowNotShown
from brain.message.event import Event, Operation
from brain.message.json_text import Scalar, scalar, scalar_in
from brain.message.matching import Match, Topic
from brain.message.row import Row

T = TypeVar("T")

Values = tuple[Scalar, ...]


class Shape(NamedTuple):
    """What a topic compares."""

    has_key: bool
    columns: tuple[str, ...]
    """In alphabetical order."""


class EqualityIndex(Generic[T]):
    """
    Items by the parts of one channel that they are subscribed to.

    There is one dictionary for all topics that compare the same columns, so an event costs one
    look-up for each such set of columns, however many values and items there are.
    """

    def __init__(self) -> None:
        self._items: dict[Shape, dict[Values, set[T]]] = {}

    def __bool__(self) -> bool:
        return bool(self._items)

    def add(self, topic: Topic, item: T) -> None:
        shape, values = compared(topic)
        self._items.setdefault(shape, {}).setdefault(values, set()).add(item)

    def remove(self, topic: Topic, item: T) -> None:
        shape, values = compared(topic)
        by_values = self._items.get(shape, {})
        items = by_values.get(values, set())
        items.discard(item)
        if not items:
            by_values.pop(values, None)
        if not by_values:
            self._items.pop(shape, None)

    def find(self, event: Event) -> Iterator[tuple[Match, set[T]]]:
        """Yield the items that `event` concerns, and how; an item may come more than once."""
        concerns_all = event.operation in (Operation.TRUNCATE, Operation.RESET)
        for shape, by_values in self._items.items():
            if concerns_all:
                for items in by_values.values():
                    yield Match.MATCHES, items
                continue
            after = values_in(event, event.row, shape)
            if after is not None and after in by_values:
                yield Match.MATCHES, by_values[after]
            if event.operation is Operation.UPDATE and shape.columns:
                before = values_in(event, event.former, shape)
                if before is not None and before != after and before in by_values:
                    yield Match.LEAVES, by_values[before]

    def match(self, event: Event) -> Match | None:
        """Return how `event` concerns any item; None: none of them."""
        leaves = False
        for match, _ in self.find(event):
            if match is Match.MATCHES:
                return match
            leaves = True
        return Match.LEAVES if leaves else None


def compared(topic: Topic) -> tuple[Shape, Values]:
    """Return what a topic compares with what."""
    key = () if topic.key is None else (topic.key,)
    columns = tuple(name for name, _, _ in topic.where)
    return Shape(bool(key), columns), (*key, *(scalar(value) for _, value, _ in topic.where))


def values_in(event: Event, row: Row | None, shape: Shape) -> Values | None:
    """Return what `event` has in place of a topic's values; None if it has no such row."""
    if shape.has_key and event.key is None:
        return None
    values: list[Scalar] = [event.key_text] if shape.has_key else []
    try:
        for name in shape.columns:
            if row is None or name not in row:
                return None
            values.append(scalar_in(row.text(name)))
    except RowNotShown:
        return None  # what was published is no object
    return tuple(values)
