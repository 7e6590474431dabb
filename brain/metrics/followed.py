"""Counters that follow plain numbers."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import Counter


class Followed:
    """
    Adds to a counter what a number has grown by.

    The number is of this process, and begins at 0. The counter may go on from that of an earlier
    process.
    """

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._children: dict[tuple[str, ...], Counter] = {}
        self._seen: dict[tuple[str, ...], float] = {}

    def follow(self, total: float, *labels: str) -> None:
        """Bring the counter with these labels to what `total` is by now."""
        child = self._children.get(labels)
        if child is None:
            child = self._counter.labels(*labels) if labels else self._counter
            self._children[labels] = child
        grown = total - self._seen.get(labels, 0.0)
        if grown > 0:
            child.inc(grown)
            self._seen[labels] = total

    def follow_all(self, totals: Mapping[str, float]) -> None:
        """Do so for each value of the only label."""
        for label, total in totals.items():
            self.follow(total, label)
