"""One server of the fan-out benchmark with its clients, and the measurements of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import NamedTuple

import asyncpg
import orjson

from bench.bare import running_bare
from bench.brain import brain_for_many, publisher
from bench.contender import Contender
from bench.descriptors import fitting
from bench.dialects import EventStreamDialect, V1Dialect, WebSocketDialect
from bench.load import ACKNOWLEDGING, Load, Receipt, alike, by_length, by_mark, running_load
from bench.naive import running_naive
from bench.nchan import NchanMissing, running_nchan
from bench.note import FIRST_NUMBER, Notes
from bench.server import Server
from bench.usage import Cores, family_time, on_core

BARE = "socket.send"
JOINED = "socket.send, burst joined"
NCHAN = "nginx with nchan"
NAIVE = "send_json in a loop"
BRAIN = "Brain"
V1 = "Brain, brain.v1"
EVENTS = "Brain, SSE"
BRAINS = (BRAIN, V1, EVENTS)
NAMES = (BARE, JOINED, NCHAN, NAIVE, *BRAINS)

WARMING_SECONDS = 0.3
# Between single messages; at this rate Brain does not turn busy.
PAUSE_SECONDS = 0.01
# With fewer, the server waits for the next burst, and its rate is not the highest possible.
BURSTS_IN_FLIGHT = 3


class Measured(NamedTuple):
    """The result of publishing in one mode for a while."""

    rate: float
    """Deliveries per second."""
    microseconds: float
    """Processor time of the server per delivery."""
    message_microseconds: float
    """The same per message."""
    database_microseconds: float
    """Processor time of PostgreSQL per delivery; 0 for a server that does not use it."""
    database_message_microseconds: float
    """The same per message."""
    server_share: float
    """The share of its core that the server used."""
    disturbed_share: float
    """The share of the time in which the server was ready to run but had to wait for its core."""
    clients_share: float
    """The share of the other core that clients, PostgreSQL and this process used."""


class Spent(NamedTuple):
    """Seconds of processor time so far."""

    server: float
    waited: float
    """Of the server: ready to run, but waiting for its core."""
    database: float
    clients: float
    """Of the clients and of this process."""


@dataclass
class Match:
    """A server with its clients."""

    contender: Contender
    load: Load
    clients: int
    database: int | None = None
    """The process id of the PostgreSQL that it uses."""
    numbers: Iterator[int] = field(default_factory=lambda: count(FIRST_NUMBER))
    delivered: int = 0

    async def examine(self, messages: int) -> None:
        """Publish messages, and check that every client receives exactly these."""
        self.load.examine(messages)
        numbers = await self._publish(messages)
        payloads = await self.load.examined()
        assert [orjson.loads(text)["data"]["number"] for text in payloads] == numbers

    async def broadcast(self) -> tuple[float, Receipt]:
        """Publish a message; return the time before that, and when the clients had it."""
        self.load.expect(1)
        begun = time.monotonic()
        await self._publish(1)
        return begun, await self.load.received()

    async def measure(self, messages: int, seconds: float) -> Measured:
        """Publish `messages` at once, again and again for `seconds`."""
        repeat = self._one_by_one if messages == 1 else partial(self._in_bursts, messages)
        await repeat(WARMING_SECONDS)
        begun, before = time.monotonic(), self._spent()
        delivered = self.delivered
        taken = await repeat(seconds)
        after, passed = self._spent(), time.monotonic() - begun
        spent = after.server - before.server
        database = after.database - before.database
        deliveries = self.delivered - delivered
        return Measured(
            rate=deliveries / taken,
            microseconds=spent / deliveries * 1e6,
            message_microseconds=spent / deliveries * self.clients * 1e6,
            database_microseconds=database / deliveries * 1e6,
            database_message_microseconds=database / deliveries * self.clients * 1e6,
            server_share=spent / passed,
            disturbed_share=(after.waited - before.waited) / passed,
            clients_share=(database + after.clients - before.clients) / passed,
        )

    async def _one_by_one(self, seconds: float) -> float:
        """Publish each message when all have the previous one; return the time without pauses."""
        taken = 0.0
        end = time.monotonic() + seconds
        while not taken or time.monotonic() < end:
            begun, receipt = await self.broadcast()
            taken += receipt.last - begun
            await asyncio.sleep(PAUSE_SECONDS)
        return taken

    async def _in_bursts(self, messages: int, seconds: float) -> float:
        """Publish bursts with several in flight; return the time until the last delivery."""
        begun = time.monotonic()
        for _ in range(BURSTS_IN_FLIGHT - 1):
            await self._begin_burst(messages)
        while time.monotonic() < begun + seconds:
            await self._begin_burst(messages)
            await self.load.received()
        for _ in range(BURSTS_IN_FLIGHT - 1):
            end = (await self.load.received()).last
        return end - begun

    async def _begin_burst(self, messages: int) -> None:
        self.load.expect(messages, messages * (BURSTS_IN_FLIGHT - 1))
        await self._publish(messages)

    async def _publish(self, messages: int) -> list[int]:
        numbers = [next(self.numbers) for _ in range(messages)]
        await self.contender.publish(numbers)
        self.delivered += messages * self.clients
        return numbers

    def _spent(self) -> Spent:
        server = family_time(self.contender.process_id)
        return Spent(
            server=server.spent,
            waited=server.waited,
            database=0 if self.database is None else family_time(self.database).spent,
            clients=family_time(self.load.process_id).spent + time.process_time(),
        )


@asynccontextmanager
async def brain_contenders(
    server: Server, notes: Notes, folder: Path
) -> AsyncIterator[list[Contender]]:
    """Run one Brain whose clients take turns: each kind has a channel of its own."""
    writer = await asyncpg.connect(server.url)
    async with brain_for_many(server.url, folder) as brain:
        running = partial(Contender, port=brain.port, process_id=brain.process.pid)
        base, v1, events = (publisher(writer, notes, one) for one in ("base", "v1", "events"))
        yield [
            running(
                BRAIN,
                publish=base,
                dialect=WebSocketDialect("/ws?channel=base", is_greeted=True),
            ),
            running(V1, publish=v1, dialect=V1Dialect("/ws/v1", "v1"), has_cursors=True),
            running(
                EVENTS,
                publish=events,
                dialect=EventStreamDialect("/sse?channel=events"),
                has_cursors=True,
            ),
        ]
    await writer.close()


@asynccontextmanager
async def alone(start: AbstractAsyncContextManager[Contender]) -> AsyncIterator[list[Contender]]:
    async with start as contender:
        yield [contender]


def load_of(contender: Contender, notes: Notes, clients: int) -> AbstractAsyncContextManager[Load]:
    """Run clients of a contender until the context ends."""
    counting = by_mark() if contender.has_cursors else by_length(notes.frame_bytes)
    acknowledging = ACKNOWLEDGING if contender.waits_for_clients else ()
    dialects = alike(contender.dialect, clients)
    return running_load(contender.port, dialects, *counting, *acknowledging)


@asynccontextmanager
async def running_matches(
    server: Server, notes: Notes, clients: int, folder: Path, cores: Cores
) -> AsyncIterator[list[Match]]:
    """Run all installed servers, each with its own clients, until the context ends."""
    starts: tuple[Callable[[], AbstractAsyncContextManager[list[Contender]]], ...] = (
        lambda: alone(running_bare(BARE, notes, clients)),
        lambda: alone(running_bare(JOINED, notes, clients, "--joins")),
        lambda: alone(running_nchan(NCHAN, notes, clients, folder)),
        lambda: alone(running_naive(NAIVE, notes)),
        lambda: brain_contenders(server, notes, folder),
    )
    matches: list[Match] = []
    async with AsyncExitStack() as stack:
        for start in starts:
            try:
                with on_core(cores.server):
                    contenders = await stack.enter_async_context(start())
            except NchanMissing:
                continue
            # One process has the clients of all of its contenders.
            for contender in contenders[: fitting([clients * len(contenders)])[0] // clients]:
                load = await stack.enter_async_context(load_of(contender, notes, clients))
                database = server.embedded.process_id if contender.name in BRAINS else None
                matches.append(Match(contender, load, clients, database))
        yield matches
