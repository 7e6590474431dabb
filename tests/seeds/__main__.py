"""
The five systems' clients, side by side, while one SQL script runs.

    python -m tests.seeds

The program starts a server on a new database, and a client for each of the documents. Then it runs
the statements of demonstration.sql, and prints the messages of each client in its column.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import tempfile
import textwrap
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path

import asyncpg
import orjson
from websockets.asyncio.client import connect

from brain.embedded.server import serve_embedded
from brain.systems.channels.wire_format import STANDARD_CHANNELS
from tests.end_to_end.brain import running_brain

SCRIPT = Path(__file__).with_name("demonstration.sql")
STATEMENT = re.compile(r"^-- (?P<title>.+)\n(?P<sql>(?:(?!-- ).*\n?)+)", re.MULTILINE)

# The state of a feed is sent at most once a second.
QUIET_SECONDS = 1.5
LEAST_WIDTH = 28


@dataclass
class DocumentedClient:
    """A client of one of the systems, and what it has received since `taken` was called last."""

    name: str
    addresses: Sequence[str]
    sent: Sequence[object] = ()
    received: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def connected(self, port: int) -> AsyncIterator[None]:
        """Follow until the context ends."""
        async with AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
            following = []
            for address in self.addresses:
                url = f"ws://localhost:{port}{address}"
                socket = await stack.enter_async_context(connect(url, proxy=None))
                for message in self.sent:
                    await socket.send(orjson.dumps(message).decode())
                following.append(tasks.create_task(self._follow(aiter(socket))))
            yield
            for task in following:
                task.cancel()

    async def _follow(self, messages: AsyncIterator[str | bytes]) -> None:
        async for message in messages:
            self.received.append(message if isinstance(message, str) else message.decode())

    def taken(self) -> list[str]:
        received, self.received = self.received, []
        return received


def clients() -> list[DocumentedClient]:
    subscriptions = [{"type": "subscribe", "channel": name} for name in STANDARD_CHANNELS]
    return [
        DocumentedClient("1 Cecelia Brain", ["/ws"]),
        DocumentedClient("2 BRAiN channels", ["/ws/connect"], subscriptions),
        DocumentedClient("3 tac-webbuilder", ["/ws/workflows", "/ws/queue"]),
        DocumentedClient("4 Mission Control", ["/?token=test-123"]),
        DocumentedClient("5 Code Cloud Agents", ["/ws?token=test-123"]),
    ]


def rows(cells: Sequence[Sequence[str]], width: int) -> Iterator[str]:
    """Yield the lines of a table row, in which each cell has its texts below each other."""
    wrapped = [
        [text[start : start + width] for text in cell for start in range(0, len(text), width)]
        for cell in cells
    ]
    for lines in zip_longest(*wrapped, fillvalue=""):
        yield " │ ".join(f"{line:<{width}}" for line in lines).rstrip()


def statements() -> Iterator[tuple[str, str]]:
    for match in STATEMENT.finditer(SCRIPT.read_text()):
        yield match["title"], match["sql"].strip()


async def demonstrate(port: int, database: asyncpg.Connection) -> None:
    systems = clients()
    width = max(LEAST_WIDTH, shutil.get_terminal_size((170, 40)).columns // len(systems) - 3)
    print("\n".join(rows([[system.name] for system in systems], width)))
    async with AsyncExitStack() as stack:
        for system in systems:
            await stack.enter_async_context(system.connected(port))
        await asyncio.sleep(QUIET_SECONDS)
        print_row("They connect", "", systems, width)
        for title, sql in statements():
            await database.execute(sql)
            await asyncio.sleep(QUIET_SECONDS)
            print_row(title, sql, systems, width)


def print_row(title: str, sql: str, systems: Sequence[DocumentedClient], width: int) -> None:
    print(f"\n── {title}")
    if sql:
        print(textwrap.indent(sql, "   "))
    print("\n".join(rows([system.taken() for system in systems], width)))


async def main() -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        serve_embedded(Path(folder) / "database", superuser=True) as server,
    ):
        async with running_brain(Path(folder), "--database-url", server.url) as brain:
            database = await asyncpg.connect(server.url)
            try:
                await demonstrate(brain.port, database)
            finally:
                await database.close()


if __name__ == "__main__":
    asyncio.run(main())
