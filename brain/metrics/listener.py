"""Metrics of how Brain follows the database, and of what goes wrong."""

from __future__ import annotations

import time
from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge

from brain.listener.batch_source import BatchSourceStatistics
from brain.metrics.delivery import READ_BUCKETS
from brain.metrics.followed import Followed, FollowedHistogram

TICK_BUCKETS = (
    *(0.0005, 0.001, 0.002, 0.004, 0.008, 0.015, 0.03, 0.06, 0.125, 0.25, 0.5),
    *(1.0, 2.0, 4.0, 8.0),
)


class ListenerMetrics:
    """Shows the batch source, feeds, retention, and problems."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._database_up = Gauge(
            "brain_database_up",
            "1 while the log is followed; of several workers, by all of them.",
            registry=registry,
            multiprocess_mode="livemin",
        )
        self._busy = Gauge(
            "brain_listener_busy",
            "1 while the log is polled, because changes come fast, and writers need not notify.",
            registry=registry,
            multiprocess_mode="livemax",
        )
        self._tick_lag = Gauge(
            "brain_tick_lag_seconds",
            "How long ago the log was read to its end; of several workers, the longest.",
            registry=registry,
            multiprocess_mode="livemax",
        )
        self._reconnections = Followed(
            Counter(
                "brain_database_reconnections_total",
                "How often the log was followed again over new connections.",
                registry=registry,
            )
        )
        self._notifications = Followed(
            Counter(
                "brain_notifications_total",
                "How often a notification, or a tick that was cut here, woke the listener.",
                registry=registry,
            )
        )
        self._tick_read = FollowedHistogram(
            registry,
            "brain_tick_read_seconds",
            "How long cutting a tick and reading a page of the log has taken.",
            TICK_BUCKETS,
        )
        self._flush = FollowedHistogram(
            registry,
            "brain_log_flush_seconds",
            "How long waiting until the disk has the log has taken.",
            TICK_BUCKETS,
        )
        self._problems = Followed(
            Counter(
                "brain_problems_total",
                "What went wrong and was lived with, by the first word of its address.",
                ["kind"],
                registry=registry,
            )
        )
        self._trims = Counter(
            "brain_log_trims_total",
            "How often old events were removed, or could not be.",
            ["result"],
            registry=registry,
        )
        for result in ("done", "failed"):
            self._trims.labels(result)
        self._feeds = Gauge(
            "brain_feeds_live",
            "Feeds, each with one argument, that have subscribers.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._feed_subscribers = Gauge(
            "brain_feed_subscribers",
            "Subscribers of feeds.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._feed_seconds = FollowedHistogram(
            registry, "brain_feed_seconds", "How long the query of a feed has taken.", READ_BUCKETS
        )
        self.note_read = self._tick_read.note
        self.note_flush = self._flush.note
        self.note_feed = self._feed_seconds.note

    def note_trim(self, result: str) -> None:
        self._trims.labels(result).inc()

    def sample_source(self, statistics: BatchSourceStatistics) -> None:
        self._database_up.set(statistics.is_live)
        self._busy.set(statistics.is_busy)
        self._tick_lag.set(time.monotonic() - statistics.read_at)
        self._reconnections.follow(statistics.reconnections)
        self._notifications.follow(statistics.notifications)
        for histogram in (self._tick_read, self._flush, self._feed_seconds):
            histogram.follow()

    def sample_problems(self, counts: Mapping[str, int]) -> None:
        self._problems.follow_all(counts)

    def sample_feeds(self, live: int, subscribers: int) -> None:
        self._feeds.set(live)
        self._feed_subscribers.set(subscribers)
