"""A Brain with its metrics, a Prometheus that watches it, and `brain doctor`."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

from brain.database.migrations import migrate
from brain.database.schema_files import core_schema
from tests.end_to_end.brain import RunningBrain, brain, running_brain
from tests.operating.prometheus import Prometheus, running_prometheus, unused_port

SECRET = "the secret of this Brain, of 32 bytes and more"
SETTINGS = {
    "BRAIN_SYSTEMS": "",
    "BRAIN_JWT_SECRET": SECRET,
    "BRAIN_PUBLIC_CHANNELS": "*",
    "BRAIN_METRICS_DATABASE_SECONDS": "0.5",
    "BRAIN_TABLE_TIMEOUT_SECONDS": "1",
}
ORDERS = """
    CREATE TABLE orders (id integer PRIMARY KEY, status text NOT NULL, note text);
    INSERT INTO orders VALUES (1, 'open');
    SELECT brain.watch('orders', 'orders', '{id,status,note}');
"""


@dataclass(frozen=True)
class Scene:
    database: str
    brain: RunningBrain
    prometheus: Prometheus
    settings: Mapping[str, str]

    @property
    def workers(self) -> list[int]:
        """The ids of the processes of the workers."""
        process = self.brain.process.pid
        children = Path(f"/proc/{process}/task/{process}/children").read_text()
        return [int(child) for child in children.split()]

    async def examined(self, *options: str) -> dict[str, Any]:
        """Return what `brain doctor` says."""
        url = f"ws://localhost:{self.brain.port}"
        ended = await brain("doctor", "--json", "--url", url, *options, **self.settings)
        found: dict[str, Any] = json.loads(ended.stdout)
        assert ended.status == (1 if found["verdict"] == "failure" else 0), ended.stderr
        return found


@asynccontextmanager
async def watched_brain(database: str, folder: Path, **settings: str) -> AsyncIterator[Scene]:
    """Watch a table, and run Brain and Prometheus until the context ends."""
    await migrate(database, [core_schema()])
    connection = await asyncpg.connect(database)
    await connection.execute(ORDERS)
    await connection.close()
    port = unused_port()
    settings = {
        **SETTINGS,
        "BRAIN_DATABASE_URL": database,
        "BRAIN_METRICS_PORT": str(port),
        **settings,
    }
    async with (
        running_brain(folder, **settings) as running,
        running_prometheus(folder, f"localhost:{port}") as prometheus,
    ):
        await prometheus.has_scraped()
        yield Scene(database, running, prometheus, settings)
