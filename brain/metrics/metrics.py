"""All metrics of a process."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import asyncpg
from prometheus_client import CollectorRegistry

from brain.auth.policy import Authority
from brain.auth.tickets import Tickets
from brain.hub.hub import Hub
from brain.listener.batch_source import BatchSource
from brain.metrics.clients import ClientMetrics
from brain.metrics.database import DatabaseMetrics
from brain.metrics.delivery import DeliveryMetrics
from brain.metrics.exposition import Exposition
from brain.metrics.files import MetricsFiles
from brain.metrics.listener import ListenerMetrics
from brain.metrics.process import ProcessMetrics
from brain.metrics.sampler import sample_for_ever
from brain.metrics.workers import WorkerMetrics
from brain.presence.cluster import Cluster
from brain.presence.tracker import PresenceTracker
from brain.problems import Problems
from brain.session.registry import SessionRegistry
from brain.settings import Settings
from brain.transport.refusal_counts import RefusalCounts


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """The rooms whose counts are shown."""

    hub: Hub
    source: BatchSource
    sessions: SessionRegistry
    refusals: RefusalCounts
    authority: Authority
    tickets: Tickets
    presence: PresenceTracker
    cluster: Cluster
    problems: Problems


class Metrics:
    """What a process shows: alone, or as one of several through files."""

    def __init__(
        self, settings: Settings, files: MetricsFiles | None = None, process_number: int = 1
    ) -> None:
        if files is not None:
            files.adopt(process_number)
        self.registry = registry = CollectorRegistry()
        channels = settings.metrics_channels
        self.clients = ClientMetrics(registry, channels)
        self.delivery = DeliveryMetrics(registry, channels)
        self.listener = ListenerMetrics(registry)
        self.process = ProcessMetrics(registry, process_number)
        self.database = DatabaseMetrics(registry, settings.retention_seconds)
        if files is None:
            WorkerMetrics(registry).show_single()
        self.exposition = Exposition(registry if files is None else files.collector())
        self._settings = settings

    def sinks(self) -> dict[str, DeliveryMetrics]:
        """Return what gets the batches behind the hub, if some address shows the metrics."""
        return {"metrics": self.delivery} if is_shown(self._settings) else {}

    def work(
        self,
        rooms: Sampled,
        feeds: Callable[[], tuple[int, int]],
        pool: asyncpg.Pool,
        *,
        reads_database: bool,
    ) -> dict[str, Coroutine[Any, Any, None]]:
        """
        Return what runs for ever, by name; nothing where no address shows the metrics.

        `feeds` returns how many live feeds there are, and how many subscribers of these.
        """
        settings, problems = self._settings, rooms.problems
        if not is_shown(settings):
            return {}
        samples = [lambda: self.listener.sample_feeds(*feeds()), *self._samples(rooms)]
        work = {
            "metrics": sample_for_ever(samples, problems),
            "event loop": self.process.measure_loop(),
        }
        if reads_database:
            interval, timeout = settings.metrics_database_seconds, settings.database_timeout_seconds
            work["figures"] = self.database.follow(pool, interval, timeout, problems)
        return work

    def _samples(self, rooms: Sampled) -> list[Callable[[], object]]:
        """Return what brings the metrics to the counts of the rooms."""
        return [
            lambda: self.clients.sample_sessions(rooms.sessions.counts),
            lambda: self.clients.sample_refusals(rooms.refusals),
            lambda: self.clients.sample_authority(rooms.authority.statistics()),
            lambda: self.clients.sample_tickets(rooms.tickets.refused),
            lambda: self.clients.sample_presence(
                rooms.presence.counts(), is_cut_off=rooms.cluster.is_cut_off
            ),
            lambda: self.delivery.sample(rooms.hub.statistics(), rooms.hub.traffic),
            lambda: self.listener.sample_source(rooms.source.statistics()),
            lambda: self.listener.sample_problems(rooms.problems.counts),
            # The last one: its time says that all others are as new.
            self.process.sample,
        ]


def is_shown(settings: Settings) -> bool:
    """Return True if some address shows the metrics."""
    return settings.metrics_port is not None or settings.metrics_token is not None
