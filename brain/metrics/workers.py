"""Metrics of the workers, as their supervisor sees them."""

from __future__ import annotations

from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge

from brain.metrics.files import MetricsFiles
from brain.metrics.followed import Followed


class WorkerStatistics(NamedTuple):
    """What a supervisor knows of its workers."""

    wanted: int
    up: int
    """How many are ready, those that are being replaced included."""
    died: int
    """How many have ended by themselves, and were restarted."""
    hung: int
    """How many were killed because they gave no heartbeat, and were restarted."""
    replaced: int


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

    def show(self, statistics: WorkerStatistics) -> None:
        self._workers.labels("wanted").set(statistics.wanted)
        self._workers.labels("up").set(statistics.up)
        self._restarts.follow(statistics.died, "died")
        self._restarts.follow(statistics.hung, "hung")
        self._restarts.follow(statistics.replaced, "replaced")


def supervisor_metrics(files: MetricsFiles) -> WorkerMetrics:
    """Return the metrics of a supervisor, whose process has the number 0."""
    files.adopt(0)
    return WorkerMetrics(CollectorRegistry())
