"""
The idle rows of `bench.latency`: one change at a time, and what each kind of receiver takes for it.

A change is made when the previous one was received, after a pause. The time begins when COMMIT is
sent.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import asyncpg

from bench.client import Receiver
from bench.peer import CHANNEL as PEER_CHANNEL
from bench.server import PATIENCE_SECONDS, Server

PAUSE_SECONDS = 0.01

CHANNEL = "floor"

# `tasks` without Brain's triggers.
PLAIN_TABLE = """
CREATE TABLE plain_tasks (LIKE tasks INCLUDING ALL);
INSERT INTO plain_tasks SELECT * FROM tasks
"""
UPDATE_PLAIN = "UPDATE plain_tasks SET progress = $1 WHERE id = '1'"
UPDATE_WATCHED = "UPDATE tasks SET progress = $1 WHERE id = '1'"
NOTIFY = "SELECT pg_notify($1, $2)"

# As long as the message that Brain sends for a task.
PAYLOAD = (
    '{"type":"run_update","data":{"id":"1","status":"queued","progress":%d,"task_id":"1",'
    '"agent":"dev","started_at":null,"completed_at":null,"error":null},'
    '"timestamp":"2026-02-06T01:30:00.000Z"}'
)

Measure = Callable[[int], Awaitable[float]]
"""Makes a change with this number, and returns the seconds until it was received."""


class IdleChanges:
    """Makes one change, and waits until it was received."""

    def __init__(
        self,
        writer: asyncpg.Connection,
        notified: asyncio.Queue[float],
        peer: Receiver,
        brain: Receiver,
    ) -> None:
        """`notified`: when each notification on `CHANNEL` was received."""
        self._writer = writer
        self._notified = notified
        self._peer = peer
        self._brain = brain

    async def to_listener(self, number: int) -> float:
        """Update a row and notify in one transaction: the floor of whatever relies on NOTIFY."""
        await self._begin(UPDATE_PLAIN, number)
        return await self._notify_listener(number)

    async def to_peer(self, number: int) -> float:
        """Do the same, with `bench.peer` and a WebSocket client of it in place of the listener."""
        await self._begin(UPDATE_PLAIN, number)
        await self._writer.execute(NOTIFY, PEER_CHANNEL, PAYLOAD % number)
        return await self._receive(self._peer, number, await self._commit())

    async def to_brain(self, number: int) -> float:
        """Update a row of the table that Brain watches; a client of Brain receives it."""
        await self._begin(UPDATE_WATCHED, number)
        return await self._receive(self._brain, number, await self._commit())

    async def without_change(self, number: int) -> float:
        """Notify in a transaction that changes nothing: it writes no WAL, so nothing is flushed."""
        await self._writer.execute("BEGIN")
        return await self._notify_listener(number)

    async def _begin(self, update: str, number: int) -> None:
        await self._writer.execute("BEGIN")
        await self._writer.execute(update, number)

    async def _commit(self) -> float:
        """Commit; return the time at which COMMIT was sent."""
        sent = time.time()
        await self._writer.execute("COMMIT")
        return sent

    async def _notify_listener(self, number: int) -> float:
        await self._writer.execute(NOTIFY, CHANNEL, PAYLOAD % number)
        sent = await self._commit()
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self._notified.get() - sent

    async def _receive(self, receiver: Receiver, number: int, sent: float) -> float:
        (receipt,) = await receiver.until(1)
        assert receipt.progress == number
        return receipt.at - sent


@asynccontextmanager
async def idle_changes(
    server: Server, peer: Receiver, brain: Receiver
) -> AsyncIterator[IdleChanges]:
    """Connect the writer and the listener until the context ends."""
    writer, listener = await asyncpg.connect(server.url), await asyncpg.connect(server.url)
    notified: asyncio.Queue[float] = asyncio.Queue()
    await listener.add_listener(CHANNEL, lambda *_: notified.put_nowait(time.time()))
    yield IdleChanges(writer, notified, peer, brain)
    await listener.close()
    await writer.close()


async def measure_in_turns(
    kinds: Sequence[tuple[Measure, list[float]]], first: int, changes: int
) -> None:
    """Make so many changes of each kind, numbered from `first` on; add the milliseconds of each."""
    for number in range(first, first + changes):
        for measure, milliseconds in kinds:
            milliseconds.append(await measure(number) * 1000)
            await asyncio.sleep(PAUSE_SECONDS)
