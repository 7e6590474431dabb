"""What every scene plays in: a database with orders, writers, a Brain, and a gate before it."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import asyncpg
import jwt

from tests.faults.client_battery.gate import Gate, gate_to
from tests.faults.client_battery.order_writers import OrderWriter
from tests.faults.client_battery.orders import (
    BANKS,
    History,
    Table,
    create_orders,
    read_history,
    read_orders,
)
from tests.faults.scene import connected
from tests.faults.servers import Node
from tests.postgres import new_database

PATIENCE_SECONDS = 25.0
PAUSE_SECONDS = 0.06
SECRET = "not a secret, but of thirty-two bytes"
SETTINGS = {
    "BRAIN_HEARTBEAT_SECONDS": "0.5",
    "BRAIN_IDLE_POLL_SECONDS": "0.5",
    "BRAIN_ALLOWED_ORIGINS": "http://localhost:* http://127.0.0.1:*",
    # Holds a hundred changes or so: clients resume from the log as often as from the ring.
    "BRAIN_RING_BYTES": "60000",
}
WITH_TOKENS = {"BRAIN_JWT_SECRET": SECRET, "BRAIN_JWT_LEEWAY_SECONDS": "0"}


class SceneFailed(Exception):
    """A client did something wrong, or nothing."""


@dataclass(frozen=True)
class Server:
    """A PostgreSQL on which databases may be made."""

    url: str
    template: str
    """The name of a migrated database."""


@dataclass
class Surroundings:
    database: str
    node: Node
    gate: Gate
    chance: Random
    folder: Path

    async def orders(self, *, only_open: bool) -> Table:
        async with connected(self.database) as connection:
            return await read_orders(connection, only_open=only_open)

    async def history(self) -> History:
        async with connected(self.database) as connection:
            return await read_history(connection)

    async def execute(self, statement: str) -> None:
        async with connected(self.database) as connection:
            await connection.execute(statement)

    async def trim(self) -> None:
        """Remove all events from the log."""
        async with connected(self.database) as connection:
            await connection.fetchval("SELECT brain.trim('0 seconds')")

    async def kill(self) -> None:
        await self.node.end(signal.SIGKILL)

    @asynccontextmanager
    async def writing(self, pause_seconds: float = PAUSE_SECONDS) -> AsyncIterator[None]:
        """Change orders until the context ends."""
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            for bank in BANKS:
                writer = OrderWriter(bank, Random(self.chance.random()), pause_seconds)
                tasks.create_task(writer.write(self.database, stop))
            try:
                yield
            finally:
                stop.set()

    async def write(self, transactions: int = 1) -> None:
        """Attempt so many transactions, one after the other."""
        writer = OrderWriter(BANKS[0], Random(self.chance.random()), 0)
        async with connected(self.database) as connection:
            for _ in range(transactions):
                try:
                    await writer.transact(connection)
                except asyncpg.PostgresError:
                    await connection.execute("ROLLBACK")

    async def wait(self, least_seconds: float, most_seconds: float) -> None:
        """Let a random time pass, in which whatever is going on goes on."""
        await asyncio.sleep(self.chance.uniform(least_seconds, most_seconds))


def token(seconds: float, user: str = "ann") -> str:
    """Return a token that is valid for so many seconds."""
    return jwt.encode({"sub": user, "exp": time.time() + seconds}, SECRET, "HS256")


@asynccontextmanager
async def surroundings(
    server: Server, folder: Path, chance: Random, **settings: str
) -> AsyncIterator[Surroundings]:
    """Make a database with orders, and run a Brain and a gate until the context ends."""
    async with new_database(server.url, server.template) as database:
        async with connected(database) as connection:
            await create_orders(connection)
        node = Node(database, folder, {**SETTINGS, **settings})
        try:
            await node.start()
            async with gate_to(node.port) as gate:
                yield Surroundings(database, node, gate, chance, folder)
        finally:
            await node.close()


async def becomes(
    condition: Callable[[], Coroutine[Any, Any, object]],
    what: Callable[[], object],
) -> None:
    """Return once `condition` holds; `what` says what was waited for."""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not await condition():
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise SceneFailed(f"{what()} (waited {PATIENCE_SECONDS:g} s)") from None


def difference(shown: Table, expected: Table) -> str:
    """Return in what a client's orders differ from those of the table."""
    parts = {
        "missing": {id: order for id, order in expected.items() if id not in shown},
        "too many": {id: order for id, order in shown.items() if id not in expected},
        "different": {
            id: (order, expected[id])
            for id, order in shown.items()
            if id in expected and order != expected[id]
        },
    }
    return json.dumps({what: found for what, found in parts.items() if found}, default=str)
