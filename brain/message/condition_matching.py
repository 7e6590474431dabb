"""
How an event concerns topics with a condition: by its row, and by the row before.

A value that is not in an event, because it is too large or cannot be shown, equals no value of a
filter, and differs from all, as values of filters are shorter than what is left out. Nothing else
is known of it. If a match depends on it, the event is `UNDECIDED` and not left out, as the client
would lack the row from then on; a row that may have matched before `LEAVES`.
"""

from __future__ import annotations

from brain.errors import RowNotShown
from brain.message.comparison_keys import NoKey, RowValues
from brain.message.condition import Condition, Verdict
from brain.message.condition_binding import comparisons
from brain.message.event import Event, Operation
from brain.message.matching import Match, Topic
from brain.message.row import Row


class Rest:
    """What is evaluated of filters. Equal ones are one object, and compared as such."""

    __slots__ = ("condition", "topics")

    def __init__(self, condition: Condition) -> None:
        self.condition = condition
        self.topics = 0
        """How many have it."""


class Look:
    """What conditions say of the row of one event, after it and before."""

    def __init__(self, event: Event, by_filter: bool) -> None:
        """With `by_filter`, a row that did not match before enters."""
        self._operation = event.operation
        self._is_update = event.operation is Operation.UPDATE
        self._enters = by_filter and self._is_update
        self._concerns_all = event.operation in (Operation.TRUNCATE, Operation.RESET)
        self._after = Verdicts(values_of(event.row, event.omitted))
        # Which values of the row before were left out is not in the log: any that it lacks.
        former = values_of(event.former, None) if self._is_update else None
        self._before = Verdicts(former)

    @property
    def evaluations(self) -> int:
        return len(self._after.known) + len(self._before.known)

    def match(self, match: Match, rest: Rest | None, topic: Topic) -> Match | None:
        """Return how the event concerns a topic, of which all but `rest` is a `match`."""
        if self._concerns_all:
            return match
        if match is Match.LEAVES:
            return match if self._before.of(rest) is not False else None
        verdict = self._after.of(rest)
        if verdict is True:
            is_new = self._enters and self._before.evaluate(topic.condition) is not True
            return Match.ENTERS if is_new else match
        if verdict is None:
            return self._undecided(match)
        # The client saw the row if it matched: otherwise the row rules would let it enter.
        if not self._is_update or match is Match.ENTERS or self._before.of(rest) is False:
            return None
        return Match.LEAVES if self._before.evaluate(topic.condition) is not False else None

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

    def of(self, rest: Rest | None) -> Verdict:
        """Return the verdict on what is left to evaluate; None: nothing is, and the row matches."""
        if rest is None:
            return True
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


def undecided_columns(condition: Condition, event: Event) -> list[str]:
    """Return the columns that a condition compares and of which `event` has no such value."""
    if event.row is None:
        return []
    values = RowValues(event.row, event.omitted)
    unknown = (NoKey.OMITTED, NoKey.UNKNOWN)
    columns = {one.column for one in comparisons(condition)}
    return sorted({one.name for one in columns if values.key(one) in unknown})
