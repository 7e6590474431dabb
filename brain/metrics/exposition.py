"""The text of `/metrics`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

CREATED = "_created"


class Page(NamedTuple):
    content: bytes
    media_type: str


class Exposition(Collector):
    """Renders what a registry, or the files of several processes, hold at the moment."""

    def __init__(self, source: Collector) -> None:
        self._source = source

    def page(self, accept: str = "") -> Page:
        """Return all metrics in the format that a request accepts."""
        encode, media_type = choose_encoder(accept)
        return Page(encode(self), media_type)

    def collect(self) -> Iterable[Metric]:
        """Yield the metrics by name, in the same way for one process and for several."""
        for metric in sorted(self._source.collect(), key=lambda each: each.name):
            # When a counter was made is not kept in files.
            kept = [one for one in metric.samples if not one.name.endswith(CREATED)]
            metric.samples = kept
            yield metric
