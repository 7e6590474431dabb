"""What a Brain shows, parsed."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from pathlib import Path

from httpx2 import AsyncClient, HTTPError
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.end_to_end.brain import PATIENCE_SECONDS

ROOT = Path(__file__).parents[2]
# A row of a table in docs/metrics.md: name, type, labels.
ROW = re.compile(r"^\| `(brain_\w+)` \| (\w+) \|([^|]*)\|", re.MULTILINE)
DOCUMENT = (ROOT / "docs" / "metrics.md").read_text()
PORT = re.compile(r"metrics +curl http://\S+:(\d+)/metrics")


class Exposed:
    """The metrics of one scrape."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.families: dict[str, Metric] = {
            family.name: family for family in text_string_to_metric_families(text)
        }

    def value(self, name: str, **labels: str) -> float | None:
        """Return the sum of the samples with these labels; None if there is none."""
        found = [
            sample.value
            for family in self.families.values()
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        return sum(found) if found else None


def metrics_port(output: Path) -> int:
    """Return the port of the metrics of a Brain with such an output."""
    found = PORT.search(output.read_text())
    assert found is not None
    return int(found[1])


async def scrape(port: int) -> Exposed:
    async with AsyncClient(trust_env=False, timeout=PATIENCE_SECONDS) as client:
        response = await client.get(f"http://localhost:{port}/metrics")
    assert response.status_code == 200
    return Exposed(response.text)


async def shows(port: int, condition: Callable[[Exposed], object]) -> Exposed:
    """Return the first scrape for which `condition` holds."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            try:
                exposed = await scrape(port)
            except HTTPError:
                pass  # the one that accepted has been killed
            else:
                if condition(exposed):
                    return exposed
            await asyncio.sleep(0.1)


async def fresh(port: int) -> Exposed:
    """Return a scrape in which is everything that has happened before."""
    # A sample that had begun by then has ended when this has passed.
    since = time.time() + 0.5

    def is_fresh(exposed: Exposed) -> bool:
        beats = exposed.families["brain_heartbeat_timestamp_seconds"].samples
        return all(beat.value > since for beat in beats)

    return await shows(port, is_fresh)


def documented() -> dict[str, tuple[str, frozenset[str]]]:
    """Return the type and the labels of each metric in docs/metrics.md."""
    return {
        name: (kind, frozenset(re.findall(r"`(\w+)`", labels)))
        for name, kind, labels in ROW.findall(DOCUMENT)
    }
