"""What is wrong for one sink is lost to that sink alone."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import asyncpg
import pytest

from brain.app import Sink, relay
from brain.listener.batch_source import BatchSource
from brain.message.event import Batch
from brain.problems import Problems
from brain.settings import Settings

PATIENCE_SECONDS = 20.0


class Types:
    """Collects the types of messages on `news` and `poison`; may fail at those on `poison`."""

    def __init__(self, *, fails: bool) -> None:
        self._fails = fails
        self.types: asyncio.Queue[object] = asyncio.Queue()

    def deliver(self, batch: Batch) -> None:
        for event in batch.events:
            if self._fails and event.channel == "poison":
                raise RecursionError("too deep")
            if event.channel in ("news", "poison"):
                self.types.put_nowait(event.type)


async def test_a_batch_that_a_sink_cannot_deliver_is_lost_to_that_sink_alone(
    database: str, connection: asyncpg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    problems = Problems()
    source = BatchSource(database, Settings())
    picky, robust = Types(fails=True), Types(fails=False)
    sinks: dict[str, Sink] = {"picky": picky, "robust": robust}
    task = asyncio.create_task(relay(source, sinks, problems))
    async with asyncio.timeout(PATIENCE_SECONDS):
        await source.live()
        for channel, type in (("poison", "a"), ("poison", "b"), ("news", "c")):
            await connection.execute("SELECT brain.publish($1, $2, '{}')", channel, type)
            assert await robust.types.get() == type
        assert await picky.types.get() == "c"
    assert source.statistics().reconnections == 0
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task

    (problem,) = problems.recent()
    assert (problem.address, problem.count) == ("picky poison", 2)
    assert problem.text == "cannot deliver poison None: RecursionError: too deep"
    assert caplog.text.count("Traceback") == 1
