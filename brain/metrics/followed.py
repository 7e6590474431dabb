"""Counters and histograms that follow plain numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram

from brain.timing import Durations


class Followed:
    """
    Adds to a counter what a number has grown by.

    The number begins at 0, also anew: if it is less than before, all of it is new. The counter may
    go on from that of an earlier process.
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
        seen = self._seen.get(labels, 0.0)
        if total != seen:
            child.inc(total - seen if total > seen else total)
            self._seen[labels] = total

    def follow_all(self, totals: Mapping[str, float]) -> None:
        """Do so for each value of the only label."""
        for label, total in totals.items():
            self.follow(total, label)


class BulkHistogram(Histogram):
    """A histogram to which many observations are added at once."""

    def add(self, counts: Sequence[int], total: float) -> None:
        """Add observations by bucket, and their sum."""
        for bucket, count in zip(self._buckets, counts, strict=True):
            if count:
                bucket.inc(count)
        self._sum.inc(total)


class FollowedHistogram:
    """Shows durations that are noted as plain numbers."""

    def __init__(
        self, registry: CollectorRegistry, name: str, text: str, bounds: Sequence[float]
    ) -> None:
        self._durations = Durations(bounds)
        self._histogram = BulkHistogram(name, text, buckets=bounds, registry=registry)
        self._counts = [*self._durations.counts]
        self._total = 0.0
        self.note = self._durations.note

    def follow(self) -> None:
        """Bring the histogram to what was noted by now."""
        counts, total = [*self._durations.counts], self._durations.total_seconds
        if counts != self._counts:
            grown = [now - then for now, then in zip(counts, self._counts, strict=True)]
            self._histogram.add(grown, total - self._total)
            self._counts, self._total = counts, total
