"""A Brain for thousands of clients that do not answer pings."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from bench.client import WITHOUT_PINGS
from tests.end_to_end.brain import RunningBrain, running_brain


@asynccontextmanager
async def brain_for_many(url: str, folder: Path, port: int = 0) -> AsyncIterator[RunningBrain]:
    """
    Run Brain on this database until the context ends; port 0 means any free port.

    It listens on one address only. `localhost` has two, and a port that is free on one of them may
    be in use on the other, by a client of another server.
    """
    options = ("--database-url", url, "--host", "127.0.0.1", "--port", str(port))
    async with running_brain(folder, *options, **WITHOUT_PINGS) as brain:
        yield brain
