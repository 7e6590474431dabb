"""A Brain for thousands of clients that answer no pings."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from bench.client import WITHOUT_PINGS
from tests.end_to_end.brain import RunningBrain, running_brain


@asynccontextmanager
async def brain_for_many(url: str, folder: Path, port: int = 0) -> AsyncIterator[RunningBrain]:
    """
    Run it on this database until the context ends, on a port that the system chooses for 0.

    It listens on one address. `localhost` is two, and the port that is free on one may belong to
    one of the clients of another server on the other.
    """
    options = ("--database-url", url, "--host", "127.0.0.1", "--port", str(port))
    async with running_brain(folder, *options, **WITHOUT_PINGS) as brain:
        yield brain
