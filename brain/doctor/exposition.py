"""The metrics of a running Brain, as it shows them to Prometheus."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Exposition:
    """The samples of one scrape."""

    samples: Mapping[str, list[tuple[Labels, float]]] = field(default_factory=dict)
    at: float = 0.0
    """By the clock of the Brain that was scraped; 0 if that is not known."""

    @classmethod
    def parse(cls, text: str, at: float = 0.0) -> Exposition:
        """Return what a text in the format of Prometheus has. Raises ValueError."""
        samples: dict[str, list[tuple[Labels, float]]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                samples.setdefault(sample.name, []).append((sample.labels, sample.value))
        return cls(samples, at)

    def of(self, name: str, **labels: str) -> list[tuple[Labels, float]]:
        """Return the samples of a metric that have these labels."""
        return [
            (found, value)
            for found, value in self.samples.get(name, [])
            if labels.items() <= found.items()
        ]

    def total(self, name: str, **labels: str) -> float | None:
        """Return the sum of such samples; None if there is none."""
        found = self.of(name, **labels)
        return sum(value for _, value in found) if found else None

    def by(self, name: str, label: str) -> dict[str, float]:
        """Return the sums of a metric by one of its labels."""
        sums: dict[str, float] = {}
        for labels, value in self.of(name):
            key = labels.get(label, "")
            sums[key] = sums.get(key, 0.0) + value
        return sums

    def grown(self, name: str, label: str, since: Exposition | None) -> dict[str, float]:
        """Return by how much a counter has grown since an earlier scrape, by one of its labels."""
        earlier = self if since is None else since
        before = earlier.by(name, label)
        return {
            key: max(0.0, count - before.get(key, 0.0))
            for key, count in self.by(name, label).items()
        }

    def quantile(self, name: str, share: float, since: Exposition | None = None) -> float | None:
        """
        Return the upper bound of the bucket of a histogram in which a quantile lies.

        `since` is an earlier scrape: what was observed before it does not count. None: nothing was.
        """
        counts = {float(le): n for le, n in self.by(f"{name}_bucket", "le").items()}
        if since is not None:
            for le, count in since.by(f"{name}_bucket", "le").items():
                counts[float(le)] = counts.get(float(le), 0.0) - count
        total = counts.get(float("inf"), 0.0)
        if total <= 0:
            return None
        return next(le for le, count in sorted(counts.items()) if count >= share * total)
