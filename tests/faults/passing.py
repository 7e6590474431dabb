"""
Short-lived clients: thousands of them, for a few messages each.

The messages of such a client have to be a contiguous part of those of a client that stayed
connected, which were compared with the ledger itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from tests.faults.ledger import DELETED, Fact, Order
from tests.faults.replica import Chains, Verdict, fact_of

ONE = "the one order"


@dataclass
class Passing:
    """The messages of one such client, over all its connections."""

    facts: list[Fact] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    """Those of the resets that it received."""
    has_received_the_end = False
    _since: float = 0.0
    """When it was last reset."""
    _received_before: int = 0
    _leaks: int = 0

    def receive(self, message: dict[str, Any]) -> None:
        self.facts.append(fact_of(message))

    def start_over(self, reason: str) -> None:
        self.reasons.append(reason)
        self._since = monotonic()
        self._received_before = len(self.facts)

    def note_leak(self) -> None:
        self._leaks += 1

    def verdict_after_reset(self, order: Order) -> Verdict:
        """Judge a client with a bad cursor: one reset, before all else, and then every change."""
        is_explained = len(self.reasons) == 1 and self.reasons[0] and self._received_before == 0
        chains, verdict = self._followed(order)
        if ONE not in chains.first:
            return verdict + Verdict(unexpected=1)
        skipped = max(0, chains.first[ONE] - order.first_after(self._since))
        return verdict + Verdict(lost=skipped, unexpected=not is_explained)

    def _followed(self, order: Order) -> tuple[Chains, Verdict]:
        """Compare with the one order; return the client's places in it, and the verdict."""
        chains = Chains(None)
        leaked = self._leaks
        for fact in self.facts:
            if place := order.place.get(fact):
                chains.receive(ONE, place)
            else:
                leaked += 1
        return chains, chains.verdict() + Verdict(leaked=leaked)


@dataclass
class Loaded(Passing):
    """A client that began with a snapshot of all tasks."""

    rows: Mapping[str, tuple[int, str | None]] = field(default_factory=dict)
    """Version and agent of each task in it."""

    def place(self, order: Order) -> int:
        """Return where it joined the one order; after its end if it never did."""
        return min((order.place.get(fact, 2**62) for fact in self.facts[:1]), default=2**62)

    def verdict_after_snapshot(self, order: Order, state: Mapping[str, Fact]) -> Verdict:
        """Judge it by the true `state` of all tasks at the place where it joined."""
        chains, verdict = self._followed(order)
        lost = duplicated = leaked = 0
        for task in self.rows.keys() | state.keys():
            version, agent = self.rows.get(task, (0, None))
            true = state.get(task)
            ahead = version - (true.version if true else 0)
            lost += max(0, -ahead)
            duplicated += max(0, ahead)
            leaked += true is not None and ahead == 0 and agent != true.agent
        is_silent = ONE not in chains.first
        own = Verdict(lost, duplicated, leaked=leaked, unexpected=len(self.reasons) + is_silent)
        return verdict + own


def verdict_on_snapshots(everyone: Iterable[Loaded], order: Order) -> Verdict:
    """Go through the one order once, and judge each client where it joined."""
    verdict = Verdict()
    state: dict[str, Fact] = {}
    passed = 0
    for loaded in sorted(everyone, key=lambda loaded: loaded.place(order)):
        for fact in order.facts[passed : loaded.place(order) - 1]:
            passed += 1
            if fact.type == DELETED:
                state.pop(fact.task, None)
            else:
                state[fact.task] = fact
        verdict += loaded.verdict_after_snapshot(order, state)
    return verdict
