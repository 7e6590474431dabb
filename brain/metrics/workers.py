"""Metrics of the workers, as their supervisor sees them."""

from __future__ import annotations

from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge

from brain.metrics.files import MetricsFiles
from brain.metrics.followed import Followed


class WorkerCounts(Protocol):
    """What a supervisor knows of its workers."""

    @property
    def wanted(self) -> int: ...
    @property
    def up(self) -> int: ...
    @property
    def died(self) -> int: ...
    @property
    def hung(self) -> int: ...
    @property
    def replaced(self) -> int: ...


class WorkerMetrics:
    """Shows how many workers there should be, and are, and why they were restarted."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._workers = Gauge(
            "brain_workers",
            "How many processes should serve, and how many do.",
            ["state"],
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._restarts = Followed(
            Counter(
                "brain_worker_restarts_total",
                "Workers that were started in place of another, by why that had ended.",
                ["reason"],
                registry=registry,
            )
        )

    def show_single(self) -> None:
        """Show a process that serves alone."""
        self._workers.labels("wanted").set(1)
        self._workers.labels("up").set(1)
        for reason in ("died", "hung", "replaced"):
            self._restarts.follow(0, reason)

    def show(self, counts: WorkerCounts) -> None:
        self._workers.labels("wanted").set(counts.wanted)
        self._workers.labels("up").set(counts.up)
        self._restarts.follow(counts.died, "died")
        self._restarts.follow(counts.hung, "hung")
        self._restarts.follow(counts.replaced, "replaced")


def supervisor_metrics(files: MetricsFiles) -> WorkerMetrics:
    """Return the metrics of a supervisor, whose process has the number 0."""
    files.adopt(0)
    return WorkerMetrics(CollectorRegistry())
