"""
Finds what is subscribed to rows of a channel, by any filter.

Two kinds of filters exist. `Topic.where` has values that columns must have, compared as JSON has
them: it is looked up in an `EqualityIndex`. `Topic.condition` is that of a filter in brain.v1:

1. `parse_condition` (`brain/message/condition_parsing.py`) parses it;
2. `FilterBinder` (`brain/database/filter_binder.py`) gives its columns their types, and its values
   the form that they have in events;
3. a `Topic` with that condition is what a client subscribes to. Equal ones are equal objects, by
   which cohorts are shared;
4. `condition_in_sql` (`brain/database/row_conditions.py`) returns the same condition in SQL, for
   queries of the rows of the table.

1, 2 and 4 raise `FilterRefused` with a sentence for the client. If a watch changes, conditions are
bound again: until then, what does not fit the types that they know is `UNDECIDED`.

Equality, lists and null of a condition are looked up, too, whatever their number. The rest of it is
evaluated for the events that have those values, once per event for all topics with the same rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Generic, NamedTuple, TypeVar

from brain.message.condition import EVERYTHING, Condition
from brain.message.condition_binding import comparisons
from brain.message.condition_matching import Look, Rest
from brain.message.equality_index import EqualityIndex
from brain.message.event import Event
from brain.message.lookups import split
from brain.message.matching import Match, Topic

T = TypeVar("T")


class FilterIndexStatistics(NamedTuple):
    topics: int
    """Distinct ones with a condition."""
    rests: int
    """Distinct conditions that are evaluated."""
    values: int
    """Compared by these conditions."""
    evaluations: int
    """Of such a condition on a row, since the index was made."""


class Entry(Generic[T]):
    """A topic with a condition, and its items."""

    __slots__ = ("items", "rest", "topic")

    def __init__(self, topic: Topic, rest: Rest | None) -> None:
        self.topic = topic
        self.rest = rest
        self.items: set[T] = set()


class FilterIndex(Generic[T]):
    """Items by the topics of one channel that they are subscribed to."""

    __slots__ = ("_by_condition", "_plain")

    def __init__(self) -> None:
        self._plain: EqualityIndex[T] = EqualityIndex()
        self._by_condition: ConditionIndex[T] | None = None
        """None: no topic has a condition."""

    def __bool__(self) -> bool:
        return bool(self._plain) or self._by_condition is not None

    def add(self, topic: Topic, item: T) -> None:
        """Raises `TypeError` for a condition with columns that have no types."""
        if topic.has_condition:
            if any(one.column.kind == "unbound" for one in comparisons(topic.condition)):
                raise TypeError("the types of the columns of a filter have to be looked up first")
            if self._by_condition is None:
                self._by_condition = ConditionIndex()
            self._by_condition.add(topic, item)
        else:
            self._plain.add(topic.lookups, item)

    def remove(self, topic: Topic, item: T) -> None:
        if not topic.has_condition:
            self._plain.remove(topic.lookups, item)
        elif self._by_condition is not None:
            self._by_condition.remove(topic, item)
            if not self._by_condition:
                self._by_condition = None

    def find(self, event: Event, *, by_filter: bool = False) -> Iterator[tuple[Match, set[T]]]:
        """
        Return the items that `event` concerns, and how.

        An item may come more than once: of the ways, the first one in `Match` holds. With
        `by_filter`, a row also enters what it enters by a condition, and not only by row rules.
        """
        plain = self._plain.find(event)
        if self._by_condition is None:
            return plain
        return chain(plain, self._by_condition.find(event, by_filter))

    def match(self, event: Event) -> Match | None:
        """Return how `event` concerns any item; None: none of them."""
        found = {match for match, items in self.find(event) if items}
        return next((match for match in Match if match in found), None)

    def statistics(self) -> FilterIndexStatistics:
        if self._by_condition is None:
            return FilterIndexStatistics(0, 0, 0, 0)
        return self._by_condition.statistics()


class ConditionIndex(Generic[T]):
    """Items by topics with a condition."""

    def __init__(self) -> None:
        self._entries: dict[Topic, Entry[T]] = {}
        self._looked_up: EqualityIndex[Entry[T]] = EqualityIndex()
        self._rests: dict[Condition, Rest] = {}
        self._evaluations = 0

    def __bool__(self) -> bool:
        return bool(self._entries)

    def add(self, topic: Topic, item: T) -> None:
        entry = self._entries.get(topic)
        if entry is None:
            entry = self._entries[topic] = Entry(topic, self._rest(split(topic.condition).rest))
            self._looked_up.add(topic.lookups, entry)
        entry.items.add(item)

    def remove(self, topic: Topic, item: T) -> None:
        entry = self._entries.get(topic)
        if entry is None:
            return
        entry.items.discard(item)
        if entry.items:
            return
        del self._entries[topic]
        self._looked_up.remove(topic.lookups, entry)
        if entry.rest is not None:
            entry.rest.topics -= 1
            if not entry.rest.topics:
                del self._rests[entry.rest.condition]

    def find(self, event: Event, by_filter: bool) -> Iterator[tuple[Match, set[T]]]:
        look = Look(event, by_filter)
        for match, entries in self._looked_up.find(event):
            for entry in entries:
                found = look.match(match, entry.rest, entry.topic)
                if found is not None:
                    yield found, entry.items
        self._evaluations += look.evaluations

    def statistics(self) -> FilterIndexStatistics:
        values = sum(condition.size for condition in self._rests)
        return FilterIndexStatistics(
            len(self._entries), len(self._rests), values, self._evaluations
        )

    def _rest(self, condition: Condition) -> Rest | None:
        if condition == EVERYTHING:
            return None
        found = self._rests.get(condition)
        if found is None:
            found = self._rests[condition] = Rest(condition)
        found.topics += 1
        return found
