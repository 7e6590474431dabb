"""
The messages of a client, compared with what was committed.

Nothing is stored per message: a chain per task shows at once if a version is missing or repeated.
"""

from __future__ import annotations

from collections.abc import Mapping
from time import monotonic
from typing import Any, NamedTuple

from tests.faults.ledger import DELETED, END, Fact, Truth


class Verdict(NamedTuple):
    lost: int = 0
    duplicated: int = 0
    reordered: int = 0
    leaked: int = 0
    """Sent, although rolled back or private."""
    unexpected: int = 0
    """Needless resets, and missing ones."""

    def __add__(self, other: object) -> Verdict:
        assert isinstance(other, Verdict)
        return Verdict(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))

    @property
    def is_clean(self) -> bool:
        return not any(self)


class Chains:
    """Consecutive numbers, a chain of them for each key."""

    def __init__(self, known: Mapping[str, int] | None) -> None:
        """Begin each chain after its `known` number, or 0; with None, at its first message."""
        self.known = known
        self.first: dict[str, int] = {}
        self.last: dict[str, int] = {}
        self._missing: dict[str, set[int]] = {}
        self._duplicated = 0
        self._reordered = 0

    def receive(self, key: str, number: int) -> None:
        last = self.last.get(key)
        if last is None:
            last = number - 1 if self.known is None else self.known.get(key, 0)
            self.first[key] = number
        if number == last + 1:
            self.last[key] = number
        elif number > last:
            self._missing.setdefault(key, set()).update(range(last + 1, number))
            self.last[key] = number
        elif number in self._missing.get(key, ()):
            self._missing[key].remove(number)
            self._reordered += 1
        else:
            self._duplicated += 1

    def verdict(self) -> Verdict:
        lost = sum(map(len, self._missing.values()))
        return Verdict(lost, self._duplicated, self._reordered)


class Epoch:
    """The messages between two resets. A reset discards what the client had before."""

    def __init__(self, known: Mapping[str, int] | None) -> None:
        self.begun = monotonic()
        self.chains = Chains(known)
        self.is_last = True

    def verdict(self, truth: Truth) -> Verdict:
        """Count as lost what the last epoch lacks at its end: no reset makes up for it."""
        lost = 0
        known = self.chains.known
        for task, final in truth.final.items():
            needed = (
                truth.first_after(task, self.begun) if known is None else known.get(task, 0) + 1
            )
            first = self.chains.first.get(task)
            if first is not None and known is None:
                lost += max(0, first - needed)
            if self.is_last:
                lost += max(0, final - self.chains.last.get(task, needed - 1))
        return self.chains.verdict() + Verdict(lost)


class Replica:
    """The messages of one client, over all its connections."""

    def __init__(
        self, received: set[Fact], known: Mapping[str, int], order: list[Fact] | None = None
    ) -> None:
        """
        Begin after the `known` version of each task.

        Facts are added to `received`, which all clients share, and in their order to `order`.
        """
        self._received = received
        self._order = order
        self._epochs = [Epoch(known)]
        self._chains = self._epochs[0].chains
        self._leaked = 0
        self._end_since: float | None = None
        self.deliveries = 0
        self.resets = 0
        self.has_received_the_end = False
        """Or was reset after the end was written, and need not receive it."""

    def receive(self, message: dict[str, Any]) -> None:
        fact = fact_of(message)
        self.deliveries += 1
        self._received.add(fact)
        if self._order is not None:
            self._order.append(fact)
        self._chains.receive(fact.task, fact.version)
        if fact.task == END:
            self.has_received_the_end = True

    def note_leak(self) -> None:
        self._leaked += 1

    def start_over(self, reason: str) -> None:
        """Handle a reset: any change of a task may come first."""
        self.resets += 1
        self._epochs[-1].is_last = False
        self._epochs.append(Epoch(None))
        self._chains = self._epochs[-1].chains
        self._forgo_the_end()

    def note_end(self, since: float) -> None:
        """Note that the end was written, at `since` or later."""
        self._end_since = since
        self._forgo_the_end()

    def _forgo_the_end(self) -> None:
        if self._end_since is not None and self._epochs[-1].begun >= self._end_since:
            self.has_received_the_end = True

    def verdict(self, truth: Truth, *, expects_resets: bool) -> Verdict:
        unexpected = 0 if expects_resets else self.resets
        own = Verdict(leaked=self._leaked, unexpected=unexpected)
        return sum((epoch.verdict(truth) for epoch in self._epochs), start=own)


def fact_of(message: dict[str, Any]) -> Fact:
    """Return the change that a message is about, which is one of those that writers make."""
    data, type = message["data"], message["type"]
    return Fact(data["id"], int(data["progress"]) + (type == DELETED), data["agent"], type)
