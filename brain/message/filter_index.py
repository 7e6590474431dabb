"""
Finds what is subscribed to rows of a channel, by any condition.

What a wire format does with a filter:

1. `condition_from_json` or `parse_condition` (`brain/message/condition_parsing.py`) parses it;
2. `bind_condition` (`brain/database/row_conditions.py`) gives its columns their types, and its
   values the form that they have in events;
3. a `FilteredTopic` with that condition is what a client subscribes to. Equal ones are equal
   objects, by which cohorts are shared, and `FilteredTopic.size` is what it counts in limits;
4. `FilterIndex.add` and `remove` keep it, `find` and `match` say what an event means to it;
5. `condition_in_sql` (`brain/database/row_conditions.py`) is the same condition in SQL: it may
   follow `brain.select_statement` after an AND.

1, 2 and 5 raise `FilterRefused` with a sentence for the client. If a watch changes, conditions have
to be bound again: until then, what does not fit the types that they know is `UNDECIDED`.

Equality conditions, and null, are looked up in an `EqualityIndex`, whatever their number. The rest
of a filter is evaluated for the events that have those values, once per event for all filters with
the same rest. A row that enters a filter is a match like any other, since the client may keep it as
it comes; `ENTERS` is about row rules.

A value that is not in an event, because it is too large or cannot be shown, equals no value of a
filter, and differs from all, as values of filters are shorter than what is left out. Nothing else
is known of it. If a match depends on it, the event is `UNDECIDED` and not left out, as the client
would lack the row from then on; a row that may have matched before `LEAVES`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from itertools import product
from typing import Generic, NamedTuple, TypeVar
from weakref import WeakValueDictionary

from brain.errors import RowNotShown
from brain.message.comparison_keys import RowValues
from brain.message.condition import EVERYTHING, All, Condition, IsNull, OneOf, Verdict, all_of
from brain.message.condition_binding import comparisons
from brain.message.equality_index import EqualityIndex
from brain.message.event import Event, Operation
from brain.message.json_text import string_of
from brain.message.matching import Filter, FilterValue, Match, RowAccess, Topic
from brain.message.row import Row

T = TypeVar("T")

MOST_ALTERNATIVES = 100
"""Combinations of values under which a filter is looked up; what would make more is evaluated."""


@dataclass(frozen=True)
class FilteredTopic:
    """The rows of a channel that match a condition; a row by its key; or all rows."""

    channel: str
    key: str | None = None
    """That of one row, as `key_text` returns it."""
    where: Condition = EVERYTHING
    """With the types of its columns."""
    rows: RowAccess | None = None
    """Those that the client may see of a channel with row rules; None: it has no rules."""

    @property
    def size(self) -> int:
        """How many values it compares, and combinations it is found under: each takes memory."""
        combinations = 1 if self.rows is None else self.rows.combinations
        return self.where.size + combinations * len(split(self.where)[0])


class FilterIndexStatistics(NamedTuple):
    topics: int
    """Distinct ones."""
    rests: int
    """Distinct conditions that are evaluated."""
    values: int
    """Compared by these conditions."""
    evaluations: int
    """Of such a condition on a row, since the index was made."""


class Rest:
    """What is evaluated of filters. Equal ones are one object, and compared as such."""

    def __init__(self, condition: Condition) -> None:
        self.condition = condition


class Entry(Generic[T]):
    """A topic with its items."""

    def __init__(self, topic: FilteredTopic, rest: Rest | None) -> None:
        self.topic = topic
        self.rest = rest
        self.items: set[T] = set()


class FilterIndex(Generic[T]):
    """Items by the topics of one channel that they are subscribed to."""

    def __init__(self) -> None:
        self._entries: dict[FilteredTopic, Entry[T]] = {}
        self._equal: EqualityIndex[Entry[T]] = EqualityIndex()
        self._rests: WeakValueDictionary[Condition, Rest] = WeakValueDictionary()
        self._evaluations = 0

    def __bool__(self) -> bool:
        return bool(self._entries)

    def add(self, topic: FilteredTopic, item: T) -> None:
        """Raises `TypeError` for a condition whose columns have no types."""
        entry = self._entries.get(topic)
        if entry is None:
            if any(one.column.kind == "unbound" for one in comparisons(topic.where)):
                raise TypeError("the types of the columns of a filter have to be looked up first")
            filters, condition = split(topic.where)
            entry = self._entries[topic] = Entry(topic, self._rest(condition))
            for where in filters:
                self._equal.add(Topic(topic.channel, topic.key, where, topic.rows), entry)
        entry.items.add(item)

    def remove(self, topic: FilteredTopic, item: T) -> None:
        entry = self._entries.get(topic)
        if entry is None:
            return
        entry.items.discard(item)
        if not entry.items:
            del self._entries[topic]
            for where in split(topic.where)[0]:
                self._equal.remove(Topic(topic.channel, topic.key, where, topic.rows), entry)

    def find(self, event: Event) -> Iterator[tuple[Match, set[T]]]:
        """
        Yield the items that `event` concerns, and how.

        An item may come more than once: of the ways, the first one in `Match` holds.
        """
        look = Look(event)
        for match, entries in self._equal.find(event):
            for entry in entries:
                found = match if entry.rest is None else look.match(match, entry.rest, entry.topic)
                if found is not None:
                    yield found, entry.items
        self._evaluations += look.evaluations

    def match(self, event: Event) -> Match | None:
        """Return how `event` concerns any item; None: none of them."""
        found = {match for match, items in self.find(event) if items}
        return next((match for match in Match if match in found), None)

    def statistics(self) -> FilterIndexStatistics:
        rests = list(self._rests.values())
        values = sum(rest.condition.size for rest in rests)
        return FilterIndexStatistics(len(self._entries), len(rests), values, self._evaluations)

    def _rest(self, condition: Condition) -> Rest | None:
        if condition == EVERYTHING:
            return None
        found = self._rests.get(condition)
        if found is None:
            found = self._rests[condition] = Rest(condition)
        return found


class Look:
    """What conditions say of the row of one event, after it and before."""

    def __init__(self, event: Event) -> None:
        self._operation = event.operation
        self._is_update = event.operation is Operation.UPDATE
        self._concerns_all = event.operation in (Operation.TRUNCATE, Operation.RESET)
        self._after = Verdicts(values_of(event.row, event.omitted))
        # Which values of the row before were left out is not in the log: any that it lacks.
        former = values_of(event.former, None) if self._is_update else None
        self._before = Verdicts(former)

    @property
    def evaluations(self) -> int:
        return len(self._after.known) + len(self._before.known)

    def match(self, match: Match, rest: Rest, topic: FilteredTopic) -> Match | None:
        """Return how the event concerns a topic, of which all but `rest` is a `match`."""
        if self._concerns_all:
            return match
        if match is Match.LEAVES:
            return match if self._before.of(rest) is not False else None
        verdict = self._after.of(rest)
        if verdict is True:
            return match
        if verdict is None:
            return self._undecided(match)
        # The client saw the row if it matched: otherwise the row rules would let it enter.
        if not self._is_update or match is Match.ENTERS or self._before.of(rest) is False:
            return None
        return Match.LEAVES if self._before.evaluate(topic.where) is not False else None

    def _undecided(self, match: Match) -> Match | None:
        match self._operation:
            case Operation.DELETE:
                return match
            case Operation.PUBLISH:
                return None  # it is no row, and has what it has
            case _:
                return Match.UNDECIDED


class Verdicts:
    """What conditions say of one row, each evaluated once."""

    def __init__(self, values: RowValues | None) -> None:
        self._values = values
        self.known: dict[Rest, Verdict] = {}

    def of(self, rest: Rest) -> Verdict:
        if rest in self.known:
            return self.known[rest]
        verdict = self.known[rest] = self.evaluate(rest.condition)
        return verdict

    def evaluate(self, condition: Condition) -> Verdict:
        if self._values is None:
            return False
        try:
            return condition.verdict(self._values)
        except RowNotShown:
            return False  # what was published is no object


def values_of(row: Row | None, omitted: tuple[str, ...] | None) -> RowValues | None:
    return None if row is None else RowValues(row, omitted)


def split(where: Condition) -> tuple[list[Filter], Condition]:
    """Return the equality filters under which a condition is looked up, and its rest."""
    looked_up: list[list[tuple[str, FilterValue, bool]]] = []
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
    filters = [tuple(sorted(chosen, key=lambda one: one[0])) for chosen in product(*looked_up)]
    return filters, all_of(rest)


def equal_to(part: Condition) -> list[tuple[str, FilterValue, bool]]:
    """Return the values of which a row must have one; none if the index cannot compare them."""
    match part:
        case IsNull(column):
            return [(column.name, None, False)]
        case OneOf(column, operands) if column.kind != "padded":
            return [(column.name, *index_value(operand.json)) for operand in operands]
        case _:
            return []


def index_value(text: str) -> tuple[FilterValue, bool]:
    """Return a value as a `Filter` has it."""
    if text in ("true", "false"):
        return text == "true", True
    return (string_of(text) if text[0] == '"' else Decimal(text)), False
