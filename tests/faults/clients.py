"""Clients that follow the tasks, and resume with their last cursor after a disconnect."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Generic, Protocol, TypeVar
from urllib.parse import quote

import orjson
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from tests.faults.ledger import SECRET

RUNS = frozenset(("run_update", "run_complete", "run_failed", "run_deleted"))
SECRET_BYTES = SECRET.encode()
OPEN_SECONDS = 10.0
FIRST_PAUSE_SECONDS = 0.02
LONGEST_PAUSE_SECONDS = 0.5


@dataclass(frozen=True)
class Lifetime:
    """How long a client stays before it disconnects by itself."""

    messages: int
    seconds: float
    away_seconds: float
    is_polite: bool
    """True if the client sends a close frame, False if it just vanishes."""


STAYING = Lifetime(messages=2**62, seconds=3600.0, away_seconds=0.0, is_polite=True)


def stay(_: Random) -> Lifetime:
    return STAYING


class Recipient(Protocol):
    """Takes the messages that a client receives."""

    has_received_the_end: bool

    def receive(self, message: dict[str, Any]) -> None: ...
    def start_over(self, reason: str) -> None: ...
    def note_leak(self) -> None: ...


Recipients = TypeVar("Recipients", bound=Recipient)


class Client(Generic[Recipients]):
    """Connects to one of these ports at a time, chosen at random."""

    def __init__(
        self,
        ports: Sequence[int],
        replica: Recipients,
        chance: Random,
        lifetimes: Callable[[Random], Lifetime] = stay,
        cursor: str = "",
    ) -> None:
        self.replica = replica
        self.greetings = 0
        self.is_settled = False
        """It has received the end, and a heartbeat after it."""
        self.is_ending = False
        """The end is written."""
        self._ports = ports
        self._chance = chance
        self._lifetimes = lifetimes
        self.cursor = cursor
        self._pause_seconds = FIRST_PAUSE_SECONDS
        self._received = asyncio.Event()

    async def follow(self) -> None:
        """Reconnect until the end was received; once the end is written, stay connected."""
        while not self.is_settled:
            lifetime = STAYING if self.is_ending else self._lifetimes(self._chance)
            try:
                await self.connect_for(lifetime)
            except (OSError, WebSocketException):
                await asyncio.sleep(self._pause_seconds * self._chance.uniform(0.5, 1))
                self._pause_seconds = min(2 * self._pause_seconds, LONGEST_PAUSE_SECONDS)

    async def receives(self) -> None:
        """Return at once when the next message about a task has come."""
        self._received.clear()
        await self._received.wait()

    async def connect_for(self, lifetime: Lifetime) -> None:
        """Connect once and stay for a lifetime; raise if the connection ends before."""
        async with opened(self._chance.choice(self._ports), self.cursor) as connection:
            async with asyncio.timeout(OPEN_SECONDS):
                greeting = orjson.loads(await connection.recv(decode=False))
            self.cursor = greeting["cursor"]
            self.greetings += 1
            self._pause_seconds = FIRST_PAUSE_SECONDS
            try:
                async with asyncio.timeout(lifetime.seconds):
                    await self._listen(connection, lifetime.messages)
            except TimeoutError:
                pass
            if not lifetime.is_polite:
                connection.transport.abort()
        await asyncio.sleep(lifetime.away_seconds)

    async def _listen(self, connection: ClientConnection, most: int) -> None:
        received = 0
        while received < most and not self.is_settled:
            received += self._take(await connection.recv(decode=False))

    def _take(self, text: bytes) -> bool:
        """Handle a message; return True if it was about a task."""
        message: dict[str, Any] = orjson.loads(text)
        type = message["type"]
        if SECRET_BYTES in text:
            self.replica.note_leak()
        if type in RUNS:
            self.replica.receive(message)
            self._received.set()
        elif type == "reset":
            self.replica.start_over(message["data"]["message"])
        elif type == "heartbeat":
            self.is_settled = self.replica.has_received_the_end
        else:
            self.replica.note_leak()
        self.cursor = message["cursor"]
        return type in RUNS


def opened(port: int, cursor: str) -> connect:
    """Open a connection that resumes after a cursor."""
    return connect(
        f"ws://127.0.0.1:{port}/ws?cursor={quote(cursor, safe='')}",
        proxy=None,
        compression=None,
        open_timeout=OPEN_SECONDS,
        close_timeout=1,
        ping_interval=None,
        # Otherwise a client with a full queue does not read the reply to its close frame, and waits
        # for it in vain.
        max_queue=None,
    )
