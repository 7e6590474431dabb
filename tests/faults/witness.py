"""A well-behaved client, which measures if clients that misbehave harm it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from time import monotonic

import orjson
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from tests.faults.figures import Figure
from tests.faults.load import CHANNEL
from tests.faults.replica import Chains

OPEN_SECONDS = 15.0
PATIENCE_SECONDS = 10.0
LOOK_SECONDS = 0.02


class Witness:
    """Counts what it receives of a load, and measures its longest wait."""

    def __init__(self) -> None:
        self._chains = Chains(None)
        self._received_at = monotonic()
        self.received = 0
        self.longest_seconds = 0.0
        self.has_been_cut = False

    async def listen(self, connection: ClientConnection) -> None:
        try:
            while True:
                self._take(orjson.loads(await connection.recv(decode=False)))
        except (OSError, WebSocketException):
            self.has_been_cut = True

    async def receives_more(self) -> None:
        """Return once it has received another message, or after too long."""
        before, begun = self.received, monotonic()
        while self.received == before and monotonic() < begun + PATIENCE_SECONDS:
            await asyncio.sleep(LOOK_SECONDS)

    def figures(self, patience_seconds: float) -> Sequence[Figure]:
        """Return its figures; it may wait `patience_seconds` for a message."""
        longest = max(self.longest_seconds, monotonic() - self._received_at)
        lost, doubled, _, _, _ = self._chains.verdict()
        return (
            Figure("a good client received", self.received, least=1),
            Figure("lost", lost, most=0),
            Figure("doubled", doubled, most=0),
            Figure("was cut", self.has_been_cut, most=0),
            Figure("waited at most", longest, "s", most=patience_seconds),
        )

    def _take(self, message: dict[str, object]) -> None:
        data = message["data"]
        if message["type"] == "note" and isinstance(data, dict):
            now = monotonic()
            self.longest_seconds = max(self.longest_seconds, now - self._received_at)
            self._received_at = now
            self.received += 1
            self._chains.receive(CHANNEL, int(data["number"]))


@asynccontextmanager
async def witnessed(port: int) -> AsyncIterator[Witness]:
    """Run a good client that listens to the load until the context ends."""
    async with well_connected(port, f"/ws?channel={CHANNEL}") as connection:
        witness = Witness()
        listening = asyncio.create_task(witness.listen(connection))
        try:
            yield witness
        finally:
            listening.cancel()
            await asyncio.wait([listening])


def well_connected(port: int, path: str = "/ws") -> connect:
    """Connect as a well-behaved client."""
    return connect(
        f"ws://127.0.0.1:{port}{path}",
        proxy=None,
        compression=None,
        open_timeout=OPEN_SECONDS,
        close_timeout=1,
        ping_interval=None,
    )
