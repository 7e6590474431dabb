"""Metrics of what clients are sent, and how soon."""

from __future__ import annotations

import time
from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge

from brain.hub.hub import HubStatistics
from brain.hub.traffic import Traffic
from brain.message.event import Batch, Operation
from brain.metrics.followed import Followed, FollowedHistogram

# From the quickest fan-out to what any operator is woken up for.
SEND_BUCKETS = (
    *(0.001, 0.002, 0.004, 0.008, 0.015, 0.03, 0.06, 0.125, 0.25, 0.5),
    *(1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 300.0),
)
READ_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
# So many events wait to be looked into. Between two batches that code has left the caches of the
# processor, and takes five times as long.
MOST_WAITING = 500


class DeliveryMetrics:
    """
    Shows what the hub sends.

    It is a sink behind the hub: when it gets a batch, clients have been sent it.
    """

    def __init__(self, registry: CollectorRegistry, channels: Sequence[str]) -> None:
        """`channels` are those that are shown by name."""
        self._operations = dict.fromkeys(Operation, 0)
        self._by_channel = dict.fromkeys(channels, 0)
        self._batches: list[Batch] = []
        """Those that were not looked into yet."""
        self._sent_at: list[float] = []
        """When each of these was sent."""
        self._waiting = 0
        """How many events they have."""
        self._events = Followed(
            Counter(
                "brain_events_total",
                "Events that the hub has had from the log, in each worker.",
                ["operation"],
                registry=registry,
            )
        )
        self._channel_events = Followed(
            Counter(
                "brain_channel_events_total",
                "Those of a channel of BRAIN_METRICS_CHANNELS.",
                ["channel"],
                registry=registry,
            )
        )
        self._deliveries = Followed(
            Counter(
                "brain_deliveries_total",
                "Messages of events that clients were sent: each counts once for each client.",
                registry=registry,
            )
        )
        self._sent_bytes = Followed(
            Counter("brain_sent_bytes_total", "The bytes of their frames.", registry=registry)
        )
        self._write_to_send = FollowedHistogram(
            registry,
            "brain_write_to_send_seconds",
            "From the write of the oldest event of a batch, by the clock of the database, until "
            "clients were sent it, by that of Brain.",
            SEND_BUCKETS,
        )
        self._tick_to_send = FollowedHistogram(
            registry,
            "brain_tick_to_send_seconds",
            "From the tick of a batch with events, by the clock of the database, until clients "
            "were sent it, by that of Brain.",
            SEND_BUCKETS,
        )
        self._lagging = Gauge(
            "brain_subscribers_lagging",
            "Subscribers that have not been sent everything, because they read slowly.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._cohorts = Gauge(
            "brain_cohorts",
            "Groups of subscribers that are sent the same bytes.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._ring_bytes = Gauge(
            "brain_ring_bytes",
            "Memory of the recent events that are kept for clients that lag or resume.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._ring_seconds = Gauge(
            "brain_ring_seconds",
            "How far back they reach; of several workers, the least.",
            registry=registry,
            multiprocess_mode="livemin",
        )
        self._resumes = Followed(
            Counter(
                "brain_resumes_total",
                "Clients that came back with a cursor, by where what they missed was read.",
                ["from"],
                registry=registry,
            )
        )
        self._resets = Followed(
            Counter(
                "brain_resets_total",
                "How often a client had to load its state again.",
                registry=registry,
            )
        )
        self._snapshots = Counter(
            "brain_snapshots_total",
            "Snapshots, and pages of such, that were read from tables, with those that failed.",
            ["kind"],
            registry=registry,
        )
        self._snapshot_seconds = FollowedHistogram(
            registry,
            "brain_snapshot_seconds",
            "How long reading one has taken, with waiting for its turn.",
            READ_BUCKETS,
        )
        for kind in ("snapshot", "page"):
            self._snapshots.labels(kind)

    def deliver(self, batch: Batch) -> None:
        """Note a batch that was sent; it is looked into with others, which is cheaper."""
        if not batch.events:  # such come all the time, and would be kept for nothing
            return
        self._sent_at.append(time.time())
        self._batches.append(batch)
        self._waiting += len(batch.events)
        if self._waiting >= MOST_WAITING:
            self._look_into_batches()

    def _look_into_batches(self) -> None:
        sent_at, batches = self._sent_at, self._batches
        self._sent_at, self._batches, self._waiting = [], [], 0
        operations, channels = self._operations, self._by_channel
        for now, batch in zip(sent_at, batches, strict=True):
            events = batch.events
            if not batch.follows or batch.ticks:
                continue  # what was written before this process began says nothing of its speed
            self._write_to_send.note(now - events[0].at.timestamp())
            if batch.tick_at is not None:
                self._tick_to_send.note(now - batch.tick_at.timestamp())
            for event in events:
                operations[event.operation] += 1
                if event.channel in channels:
                    channels[event.channel] += 1

    def note_snapshot(self, seconds: float) -> None:
        self._note_read("snapshot", seconds)

    def note_page(self, seconds: float) -> None:
        self._note_read("page", seconds)

    def _note_read(self, kind: str, seconds: float) -> None:
        self._snapshots.labels(kind).inc()
        self._snapshot_seconds.note(seconds)

    def sample(self, hub: HubStatistics, traffic: Traffic) -> None:
        self._look_into_batches()
        for operation, count in self._operations.items():
            self._events.follow(count, operation.name.lower())
        self._channel_events.follow_all(self._by_channel)
        self._deliveries.follow(traffic.messages)
        self._sent_bytes.follow(traffic.bytes)
        self._resumes.follow(traffic.ring_resumes, "ring")
        self._resumes.follow(traffic.log_resumes, "log")
        self._resets.follow(traffic.restarts)
        for histogram in (self._write_to_send, self._tick_to_send, self._snapshot_seconds):
            histogram.follow()
        self._lagging.set(hub.lagging)
        self._cohorts.set(hub.cohorts)
        self._ring_bytes.set(hub.ring_bytes)
        self._ring_seconds.set(hub.ring_seconds)
