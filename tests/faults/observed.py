"""A Brain observed from outside: its memory, its open files, its clients, its log."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from math import inf
from pathlib import Path
from time import monotonic

import orjson

from tests.faults.figures import Figure
from tests.faults.scene import ScenarioFailed, Stage, set_up
from tests.faults.servers import Node

LOOK_SECONDS = 0.1
ANSWER_SECONDS = 20.0
MEBIBYTE = 1 << 20
COMPLAINTS = ("Traceback", " ERROR ", " CRITICAL ")
STATUS = b"GET /api/brain/status/ws HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"


class ObservedNode(Node):
    @property
    def database(self) -> str:
        return self._database

    @property
    def process_id(self) -> int:
        assert self._process is not None
        return self._process.pid

    def memory_bytes(self) -> int:
        """Return the size of its resident memory."""
        pages = Path(f"/proc/{self.process_id}/statm").read_text().split()[1]
        return int(pages) * resource.getpagesize()

    def open_files(self) -> int:
        return sum(1 for _ in Path(f"/proc/{self.process_id}/fd").iterdir())

    def complaints(self) -> list[str]:
        """Return the lines of the log that show an unexpected error."""
        lines = self._log.read_text(errors="replace").splitlines()
        return [line for line in lines if any(word in line for word in COMPLAINTS)]

    async def clients(self) -> int:
        """Return how many clients it reports."""
        async with asyncio.timeout(ANSWER_SECONDS):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            try:
                writer.write(STATUS)
                answer = await reader.read()
            finally:
                writer.close()
        status = orjson.loads(answer.partition(b"\r\n\r\n")[2])
        return int(status["websocket"]["connected_clients"])

    async def departures(
        self, leaving: int, staying: int, patience_seconds: float
    ) -> Sequence[float]:
        """
        Return after how many seconds each leaving client was gone, in ascending order.

        It is infinity for a client that is still there after `patience_seconds`. Raise
        `ScenarioFailed` if there are not `leaving + staying` clients at the beginning.
        """
        begun, found = monotonic(), list[float]()
        if (present := await self.clients()) != leaving + staying:
            raise ScenarioFailed(f"there are {present} clients instead of {leaving + staying}")
        while len(found) < leaving and monotonic() < begun + patience_seconds:
            await asyncio.sleep(LOOK_SECONDS)
            gone = min(leaving, leaving + staying - await self.clients())
            found += [monotonic() - begun] * (gone - len(found))
        return [*found, *[inf] * (leaving - len(found))]


class Memory:
    """The memory of a process at first, and its maximum since."""

    def __init__(self, node: ObservedNode) -> None:
        self._node = node
        self.first_bytes = self.most_bytes = node.memory_bytes()

    def growth(self, most_mebibytes: float = inf) -> Figure:
        grown = (self.most_bytes - self.first_bytes) / MEBIBYTE
        return Figure("memory grew by", grown, "MiB", most_mebibytes)

    async def watch(self) -> None:
        while True:
            self.most_bytes = max(self.most_bytes, self._node.memory_bytes())
            await asyncio.sleep(LOOK_SECONDS)


@asynccontextmanager
async def watched_memory(node: ObservedNode) -> AsyncIterator[Memory]:
    """Watch the memory of a Brain until the context ends."""
    memory = Memory(node)
    watching = asyncio.create_task(memory.watch())
    try:
        yield memory
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


@asynccontextmanager
async def served(
    stage: Stage, settings: Mapping[str, str] = {}, encoding: str = "UTF8"
) -> AsyncIterator[ObservedNode]:
    """Run a Brain on a database of its own."""
    async with set_up(stage, encoding=encoding) as scene:
        node = ObservedNode(scene.database, stage.folder, settings)
        scene.stack.push_async_callback(node.close)
        await node.start()
        yield node
