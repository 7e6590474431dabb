"""WebSocket clients of the benchmarks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from websockets.asyncio.client import ClientConnection, connect

from bench.server import PATIENCE_SECONDS
from tests.raw_websocket import upgraded

# For clients that do not answer pings.
WITHOUT_PINGS = {"BRAIN_PING_SECONDS": "3600"}

QUIET_SECONDS = 0.3

PROGRESS = b'"progress":'


class Receipt(NamedTuple):
    at: float
    """When `recv()` returned the message, in seconds since 1970."""
    progress: float
    """The value of `progress` in the message."""


class Receiver:
    """A WebSocket client that records when it receives each message."""

    def __init__(self, client: ClientConnection) -> None:
        self._client = client
        self._received = asyncio.Event()
        self.receipts: list[Receipt] = []

    async def receive(self) -> None:
        """Receive messages until the connection is closed, which raises an error."""
        while True:
            text = await self._client.recv(decode=False)
            at = time.time()
            # Extract this one number only: parsing the JSON would cost the client more than
            # receiving the message.
            begin = text.index(PROGRESS) + len(PROGRESS)
            self.receipts.append(Receipt(at, float(text[begin : text.index(b",", begin)])))
            self._received.set()

    async def until(self, count: int) -> list[Receipt]:
        """Wait for `count` messages since the last call; return and forget all receipts."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(self.receipts) < count:
                self._received.clear()
                await self._received.wait()
        return self._taken()

    async def until_quiet(self, count: int) -> list[Receipt]:
        """Wait for `count` messages and until no more arrive; return and forget all receipts."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            known = -1
            while known < count or known < len(self.receipts):
                known = len(self.receipts)
                await asyncio.sleep(QUIET_SECONDS)
        return self._taken()

    def _taken(self) -> list[Receipt]:
        taken, self.receipts = self.receipts, []
        return taken


@asynccontextmanager
async def connected_receiver(port: int, *, is_greeted: bool = True) -> AsyncIterator[Receiver]:
    """Connect to `/ws`, read the greeting, and receive messages until the context ends."""
    async with (
        connect(f"ws://localhost:{port}/ws", proxy=None, compression=None) as client,
        asyncio.TaskGroup() as tasks,
    ):
        if is_greeted:
            await client.recv()
        receiver = Receiver(client)
        receiving = tasks.create_task(receiver.receive())
        yield receiver
        receiving.cancel()


@asynccontextmanager
async def connected_drain(port: int) -> AsyncIterator[None]:
    """Connect a client to `/ws` that reads and discards bytes, and so costs hardly any time."""
    async with upgraded(port) as client, asyncio.TaskGroup() as tasks:

        async def drain() -> None:
            while await client.receive():
                pass
            raise ConnectionError("Brain closed the connection")

        draining = tasks.create_task(drain())
        yield
        draining.cancel()
