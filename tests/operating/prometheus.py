"""A Prometheus that scrapes Brain every second, with Brain's alert rules."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path

from httpx2 import HTTPError

from tests.end_to_end.brain import PATIENCE_SECONDS, get, running

PROMETHEUS = shutil.which("prometheus")
RULES = Path(__file__).parents[2] / "deploy" / "prometheus" / "alerts.yml"
# How long a condition has to hold is what the rules are tuned by. Here it holds or it does not.
FOR = re.compile(r"^(\s+for:).*$", re.MULTILINE)
CONFIGURATION = """
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: [{rules}]
scrape_configs:
  - job_name: brain
    static_configs: [{{targets: ["{target}"]}}]
"""


@dataclass(frozen=True)
class Prometheus:
    address: str
    log: Path

    async def firing(self) -> frozenset[str]:
        """Return the names of the alerts that fire."""
        _, text = await get(f"http://{self.address}/api/v1/alerts")
        alerts = json.loads(text)["data"]["alerts"]
        return frozenset(a["labels"]["alertname"] for a in alerts if a["state"] == "firing")

    async def fires(self, alert: str) -> None:
        """Return once an alert fires."""
        firing = frozenset[str]()
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while alert not in (firing := await self.firing()):
                    await asyncio.sleep(0.2)
        except TimeoutError:
            raise AssertionError(f"expected {alert} to fire, got {sorted(firing)}") from None

    async def is_ready(self) -> bool:
        try:
            status, _ = await get(f"http://{self.address}/-/ready")
        except HTTPError:
            return False
        return status == 200

    async def has_scraped(self) -> None:
        """Return once Brain has been scraped."""
        query = f"http://{self.address}/api/v1/query?query=count(brain_connections)"
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not json.loads((await get(query))[1])["data"]["result"]:
                await asyncio.sleep(0.1)


@asynccontextmanager
async def running_prometheus(folder: Path, target: str) -> AsyncIterator[Prometheus]:
    """Scrape a Brain whose metrics are at `target`, a host with a port, until the context ends."""
    assert PROMETHEUS is not None
    rules, configuration = folder / "alerts.yml", folder / "prometheus.yml"
    rules.write_text(FOR.sub(r"\1 0s", RULES.read_text()))
    configuration.write_text(CONFIGURATION.format(rules=rules, target=target))
    address, log = f"127.0.0.1:{unused_port()}", folder / "prometheus.log"
    command = (
        PROMETHEUS,
        f"--config.file={configuration}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
    )
    async with running(command, log, {}) as process:
        prometheus = Prometheus(address, log)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not await prometheus.is_ready():
                assert process.returncode is None, log.read_text()
                await asyncio.sleep(0.1)
        yield prometheus


def unused_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port: int = listener.getsockname()[1]
    return port
