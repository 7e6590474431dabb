"""Numbered messages, published in the database at a steady rate."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic, monotonic_ns

import asyncpg
import orjson

from tests.faults.scene import connected

CHANNEL = "load"
NUMBER_DIGITS = 9
SENT_DIGITS = 18
"""In microseconds, by the clock that all processes of a machine share."""
MOST_AT_ONCE = 50

PUBLISH = "SELECT brain.publish($1, 'note', data::jsonb) FROM unnest($2::text[]) data"


class Load:
    """
    Messages that contain their number, counted from 1, and the time when they were sent.

    All have the same length, with number and time at the same offsets.
    """

    def __init__(self, connection: asyncpg.Connection, channel: str, payload_bytes: int) -> None:
        self._connection = connection
        self._channel = channel
        self._padding = "x" * payload_bytes
        self.last = 0
        """The number of the newest message."""

    @asynccontextmanager
    async def flowing(self, rate: float) -> AsyncIterator[None]:
        """Publish messages at a rate per second until the context ends."""
        async with asyncio.TaskGroup() as tasks:
            stop = asyncio.Event()
            tasks.create_task(self._flow(rate, stop))
            try:
                yield
            finally:
                stop.set()

    async def _flow(self, rate: float, stop: asyncio.Event) -> None:
        begun, before = monotonic(), self.last
        while not stop.is_set():
            due = int((monotonic() - begun) * rate) - (self.last - before)
            if due < 1:
                await asyncio.sleep(0.5 / rate)
                continue
            # Several if the load has fallen behind, as on a busy machine.
            await self.publish(min(due, MOST_AT_ONCE))

    async def publish(self, count: int = 1) -> None:
        """Publish the next messages, in one transaction."""
        numbers = range(self.last + 1, self.last + count + 1)
        self.last += count
        await self._connection.execute(PUBLISH, self._channel, [self._data(n) for n in numbers])

    def _data(self, number: int) -> str:
        sent = f"{monotonic_ns() // 1000:0{SENT_DIGITS}}"
        data = {"number": f"{number:0{NUMBER_DIGITS}}", "sent": sent, "padding": self._padding}
        return orjson.dumps(data).decode()


@asynccontextmanager
async def loaded(
    database: str, payload_bytes: int = 900, channel: str = CHANNEL
) -> AsyncIterator[Load]:
    """Yield a load with a connection of its own; it publishes nothing yet."""
    async with connected(database) as connection:
        yield Load(connection, channel, payload_bytes)
