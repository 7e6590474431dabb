"""Starts and controls the process in which a crowd of onlookers runs."""

from __future__ import annotations

import asyncio
import resource
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any, NamedTuple

import orjson

from tests.faults.figures import Delays
from tests.faults.load import Load
from tests.faults.onlookers import BLOCK
from tests.faults.scene import PATIENCE_SECONDS, ScenarioFailed

LOOK_SECONDS = 0.1
RECEIVING_SECONDS = 40.0
"""How long a crowd may take to receive everything that is published."""
LONGEST_ANSWER_BYTES = 1 << 26
SPARE_FILES = 100


class Received(NamedTuple):
    """The totals of a crowd so far."""

    gone: int
    """How many have lost their connection."""
    lost: int
    doubled: int
    resets: int
    last: int
    """The newest number that all have received."""


class Crowd:
    """The process of the onlookers."""

    def __init__(self, process: asyncio.subprocess.Process, clients: int) -> None:
        self._process = process
        self.clients = clients

    async def received(self) -> Received:
        return Received(**await self._ask("report"))

    async def delays(self, first: int, last: int) -> list[Delays]:
        """Return the delays of each block of messages that lies wholly between two numbers."""
        delays = await self._ask("delays")
        return [
            {int(tenths): count for tenths, count in delays.get(str(block), {}).items()}
            for block in range(-(-first // BLOCK), (last + 1) // BLOCK)
        ]

    async def stop(self) -> None:
        """Let no client read any more."""
        await self._ask("stop")

    async def come_back(self) -> None:
        """Let each client reconnect with its last cursor."""
        await self._ask("return")

    async def receive_all(self, load: Load) -> Received:
        """Wait until all have received the newest message, or too long; return the totals."""
        newest, deadline = load.last, monotonic() + RECEIVING_SECONDS
        while (received := await self.received()).last < newest and monotonic() < deadline:
            await asyncio.sleep(LOOK_SECONDS)
        return received

    def freeze(self) -> None:
        """Suspend the process, with its sockets open."""
        self._process.send_signal(signal.SIGSTOP)

    async def arrived(self) -> None:
        """Return once all are connected."""
        await self._answer()

    async def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        async with asyncio.timeout(PATIENCE_SECONDS):
            line = await self._process.stdout.readline()
        if not line:
            raise ScenarioFailed("the onlookers' process has ended; its error is printed above")
        answer: dict[str, Any] = orjson.loads(line)
        return answer

    async def _ask(self, command: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n".encode())
        return await self._answer()


@asynccontextmanager
async def crowd(
    port: int,
    clients: int,
    path: str = "/ws",
    receive_buffer_bytes: int = 0,
    source: str = "127.0.0.1",
) -> AsyncIterator[Crowd]:
    """Start a crowd, and yield it once all its clients are connected to a Brain."""
    allow_files(clients)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.faults.onlookers", str(port), str(clients)),
        *("--path", path, "--source", source, "--receive-buffer", str(receive_buffer_bytes)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=LONGEST_ANSWER_BYTES,
    )
    try:
        found = Crowd(process, clients)
        await found.arrived()
        yield found
    finally:
        # Not by closing its input: it may be suspended.
        if process.returncode is None:
            process.kill()
        await process.wait()


def allow_files(count: int) -> None:
    """Raise the limit of open files, for this process and later children, to `count` and some."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + SPARE_FILES
    if soft < wanted:
        if hard != resource.RLIM_INFINITY and hard < wanted:
            raise ScenarioFailed(f"{wanted} open files are needed, and {hard} are allowed")
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
