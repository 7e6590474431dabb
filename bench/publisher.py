"""Publishes messages at an even rate during a reconnect storm."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import asyncpg

from bench.note import Notes

CHANNEL = "storm"
PUBLISH = f"SELECT brain.publish('{CHANNEL}', 'note', $1::text::jsonb)"

NOTES = Notes(frame_bytes=200)


@dataclass
class Publisher:
    """Publishes numbered messages at an even rate."""

    connection: asyncpg.Connection
    interval_seconds: float
    published_at: dict[int, float] = field(default_factory=dict)
    """When each message was committed, by `time.monotonic()`."""
    is_over: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def last(self) -> int:
        return len(self.published_at)

    async def publish(self) -> None:
        """Publish until `is_over` is set."""
        due = asyncio.get_running_loop().time()
        while not self.is_over.is_set():
            number = self.last + 1
            await self.connection.execute(PUBLISH, NOTES.data(number))
            self.published_at[number] = time.monotonic()
            due += self.interval_seconds
            with suppress(TimeoutError):
                async with asyncio.timeout_at(due):
                    await self.is_over.wait()

    def newest(self, at: float) -> int:
        """Return the number of the newest message that was committed at a given time."""
        return max(number for number, then in self.published_at.items() if then <= at)


@asynccontextmanager
async def running_publisher(url: str, rate: float) -> AsyncIterator[Publisher]:
    """Publish until the context ends."""
    connection = await asyncpg.connect(url, user="publisher")
    publisher = Publisher(connection, 1 / rate)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(publisher.publish())
        yield publisher
        publisher.is_over.set()
    await connection.close()
