"""A Brain for thousands of clients that do not answer pings, and calls that publish on it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg

from bench.client import WITHOUT_PINGS
from bench.contender import Publish
from bench.note import Notes
from tests.end_to_end.brain import RunningBrain, running_brain

PUBLISH = """
SELECT count(brain.publish($1, 'note', data::jsonb)) FROM unnest($2::text[]) AS data
"""


@asynccontextmanager
async def brain_for_many(
    url: str, folder: Path, port: int = 0, workers: int = 1
) -> AsyncIterator[RunningBrain]:
    """
    Run Brain on this database until the context ends; port 0 means any free port.

    It listens on one address only. `localhost` has two, and a port that is free on one of them may
    be in use on the other, by a client of another server.
    """
    where = ("--database-url", url, "--host", "127.0.0.1", "--port", str(port))
    options = (*where, "--workers", str(workers))
    async with running_brain(folder, *options, **WITHOUT_PINGS) as brain:
        yield brain


def publisher(writer: asyncpg.Connection, notes: Notes, channel: str) -> Publish:
    """Return a call that publishes notes on a channel, in one transaction."""

    async def publish(numbers: Sequence[int]) -> None:
        await writer.execute(PUBLISH, channel, [notes.data(number) for number in numbers])

    return publish
