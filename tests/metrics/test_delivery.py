"""What the metrics keep of the batches that were sent."""

from __future__ import annotations

import sys

from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from brain.message.cursor import Cursor
from brain.message.event import Batch
from brain.metrics.delivery import DeliveryMetrics
from brain.metrics.metrics import Metrics
from brain.settings import Settings


def test_batches_without_events_are_not_kept() -> None:
    delivery = DeliveryMetrics(CollectorRegistry(), ())
    batch = Batch((), Cursor(1, 0, 0))
    before = sys.getrefcount(batch)
    for _ in range(10):
        delivery.deliver(batch)
    assert sys.getrefcount(batch) == before


def test_batches_are_noted_only_where_some_address_shows_the_metrics() -> None:
    assert Metrics(Settings()).sinks() == {}
    for shown in (Settings(metrics_port=0), Settings(metrics_token=SecretStr("a-token"))):
        metrics = Metrics(shown)
        assert metrics.sinks() == {"metrics": metrics.delivery}
