"""
The parts of every scenario: a database, Brains, writers, clients, and a verdict at the end.

    async with set_up(stage) as scene:
        node = await scene.serve()
        async with scene.followed(clients=20), scene.writing(rate=500):
            ...                             # break something here
        return await scene.report()
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from time import monotonic
from typing import NamedTuple
from uuid import uuid4

import asyncpg

from brain.database.migrations import migrate
from tests.faults.clients import Client, Lifetime, stay
from tests.faults.figures import Figure, Findings
from tests.faults.ledger import END, Fact, Notes, Order, Truth, prepare, read_truth
from tests.faults.replica import Replica, Verdict
from tests.faults.servers import Node
from tests.faults.writers import Writer, prepared_tasks, write_end
from tests.postgres import named
from tests.schemas import every_schema

WRITERS = 8
HOLD_SECONDS = 0.2
"""How long a transaction may stay open."""
PATIENCE_SECONDS = 60.0
HEARTBEAT = {"BRAIN_HEARTBEAT_SECONDS": "0.5"}


class ScenarioFailed(Exception):
    """A scenario failed, other than by the messages that its clients received."""


@dataclass(frozen=True)
class Stage:
    """The surroundings of a scenario."""

    postgres: str
    """The URL of a server on which databases may be created."""
    folder: Path
    """For the logs of the Brains."""
    chance: Random
    binaries: Path | None = None
    """The programs for a scenario that runs a PostgreSQL of its own."""


class Report(NamedTuple):
    verdict: Verdict
    writes: int
    """Committed changes."""
    writes_per_second: float
    """Attempted changes, including those that were rolled back."""
    deliveries: int
    faults: int
    resets: int
    figures: Sequence[Figure] = ()
    """What was measured besides."""

    @property
    def is_clean(self) -> bool:
        return self.verdict.is_clean and Findings(self.figures).is_clean


@dataclass
class Scene:
    """A scenario in progress. The scenario itself counts its faults and its further clients."""

    stage: Stage
    database: str
    stack: AsyncExitStack
    notes: Notes = field(default_factory=Notes)
    nodes: list[Node] = field(default_factory=list)
    clients: list[Client[Replica]] = field(default_factory=list)
    received: set[Fact] = field(default_factory=set)
    order: list[Fact] = field(default_factory=list)
    """Everything as the first client received it."""
    verdict: Verdict = field(default_factory=Verdict)
    faults: int = 0
    deliveries: int = 0
    resets: int = 0
    _writers: int = 0
    _writing_seconds: float = 0.0

    async def serve(self, url: str | None = None, **settings: str) -> Node:
        """Start a Brain that runs as long as the scene, on another URL of the database if given."""
        node = Node(url or self.database, self.stage.folder, {**HEARTBEAT, **settings})
        self.stack.push_async_callback(node.close)
        await node.start()
        self.nodes.append(node)
        return node

    async def configure(self, **settings: str) -> None:
        """Give the sessions of writers these settings."""
        async with connected(self.database) as connection:
            name = await connection.fetchval("SELECT quote_ident(current_database())")
            for setting, value in settings.items():
                await connection.execute(f"ALTER DATABASE {name} SET {setting} = {value}")

    @asynccontextmanager
    async def followed(
        self, clients: int, lifetimes: Callable[[Random], Lifetime] = stay
    ) -> AsyncIterator[None]:
        """Run clients until they have received the end, which is written when the context ends."""
        known = await self._known()
        self.clients = [self._client(number, known, lifetimes) for number in range(clients)]
        async with asyncio.TaskGroup() as tasks:
            following = [tasks.create_task(client.follow()) for client in self.clients]
            await becomes(lambda: all(client.greetings for client in self.clients), "a greeting")
            yield
            async with connected(self.database) as connection:
                await write_end(connection, self.notes)
            for client in self.clients:
                client.replica.note_end(self.notes.sent[END])
                client.is_ending = True
            _, late = await asyncio.wait(following, timeout=PATIENCE_SECONDS)
            for task in late:
                task.cancel()
        self.verdict += Verdict(unexpected=len(late))

    @asynccontextmanager
    async def writing(self, rate: float, batch: int = 8) -> AsyncIterator[None]:
        """Change tasks at a rate per second, in transactions of up to about `batch` changes."""
        stop, begun = asyncio.Event(), monotonic()
        async with asyncio.TaskGroup() as tasks:
            for number in range(WRITERS):
                writer = Writer(
                    f"{self._writers}.{number}",
                    number,
                    rate / WRITERS,
                    batch,
                    HOLD_SECONDS,
                    self.notes,
                    self.new_chance(),
                )
                tasks.create_task(writer.write(self.database, stop))
            self._writers += 1
            yield
            stop.set()
        self._writing_seconds += monotonic() - begun

    def new_chance(self) -> Random:
        return Random(self.stage.chance.random())

    async def every_client_receives(self) -> None:
        """Return once every client has received another message."""
        before_now = [(client, client.replica.deliveries) for client in self.clients]
        await becomes(
            lambda: all(client.replica.deliveries > before for client, before in before_now),
            "a message for every client",
        )

    async def truth(self) -> Truth:
        async with connected(self.database) as connection:
            return await read_truth(connection, self.notes)

    async def report(self, *, expects_resets: bool = False) -> Report:
        truth = await self.truth()
        replicas = [client.replica for client in self.clients]
        verdicts = [replica.verdict(truth, expects_resets=expects_resets) for replica in replicas]
        return Report(
            verdict=sum(verdicts, start=self.verdict + Verdict(leaked=truth.leaked(self.received))),
            writes=len(truth.facts),
            writes_per_second=self.notes.changes / self._writing_seconds,
            deliveries=self.deliveries + sum(replica.deliveries for replica in replicas),
            faults=self.faults,
            resets=self.resets + sum(replica.resets for replica in replicas),
        )

    async def true_order(self) -> Order:
        """Return all changes in the order in which the first client received them."""
        truth = await self.truth()
        return Order([fact for fact in self.order if fact in truth.facts], truth)

    def _client(
        self, number: int, known: dict[str, int], lifetimes: Callable[[Random], Lifetime]
    ) -> Client[Replica]:
        """Make a client. The first one stays all the time, and notes the order of its messages."""
        replica = Replica(self.received, known, None if number else self.order)
        ports = [node.port for node in self.nodes]
        return Client(ports, replica, self.new_chance(), lifetimes if number else stay)

    async def _known(self) -> dict[str, int]:
        """Return the versions that were committed before any client connects."""
        async with connected(self.database) as connection:
            rows = await connection.fetch("SELECT task, max(version) FROM ledger GROUP BY task")
        return dict(map(tuple, rows))


@asynccontextmanager
async def set_up(
    stage: Stage, postgres: str | None = None, encoding: str = "UTF8"
) -> AsyncIterator[Scene]:
    """Create a database for the writers, on the stage's server or on another one."""
    server = postgres or stage.postgres
    name = f"faults_{uuid4().hex}"
    async with connected(server) as admin:
        await admin.execute(
            f"CREATE DATABASE {name} TEMPLATE template0 ENCODING {encoding}"
            " LC_COLLATE 'C' LC_CTYPE 'C'"
        )
    try:
        database = named(server, name)
        await migrate(database, every_schema())
        async with connected(database) as connection:
            await prepare(connection, prepared_tasks(WRITERS))
        async with AsyncExitStack() as stack:
            yield Scene(stage, database, stack)
    finally:
        async with connected(server) as admin:
            await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url, timeout=PATIENCE_SECONDS)
    try:
        yield connection
    finally:
        connection.terminate()


async def becomes(condition: Callable[[], object], what: str) -> None:
    """Return once `condition` holds; `what` names it in the error."""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not condition():
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise ScenarioFailed(f"waited {PATIENCE_SECONDS:g} s for {what}") from None
