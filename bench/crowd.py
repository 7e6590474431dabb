"""The process of the clients that come back, `bench.returners`, as the benchmark speaks with it."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from bench.usage import end

# The longest line that the process prints.
LINE_BYTES = 2**20

# How long a client may take to have the last message.
PATIENCE_SECONDS = 120.0


@dataclass
class Report:
    """What the clients have seen, all together. Times are those of `time.monotonic()`."""

    attempts: int = 0
    """To connect."""
    greeted: int = 0
    """Attempts that Brain welcomed."""
    greeted_last_at: float = 0.0
    """When the last one was."""
    told_at: dict[int, float] = field(default_factory=dict)
    """For each message, when the last client had it."""
    lost: int = 0
    doubled: int = 0
    resets: int = 0
    """How often Brain said that it could not tell what was missed."""
    closed: dict[str, int] = field(default_factory=dict)
    """Why connections and attempts ended, and how many."""
    lost_first_at: float = 0.0
    """When the first connection ended."""
    cpu_seconds: float = 0.0
    """The processor time of this process from then until the last client was greeted."""


class Crowd:
    """The process, as the benchmark speaks with it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def live(self) -> None:
        """Wait until all are connected, and have been told the newest message."""
        await self._ask("live")

    async def finish(self, number: int) -> Report:
        """Wait until all have the message with this number, which is the last one."""
        values = await self._ask(f"finish {number}")
        told_at = {int(told): at for told, at in values.pop("told_at").items()}
        return Report(told_at=told_at, **values)

    async def answer(self) -> Any:
        """Return what it prints next."""
        assert self._process.stdout
        async with asyncio.timeout(PATIENCE_SECONDS * 3):
            line = await self._process.stdout.readline()
        if not line:
            raise ConnectionError("the clients have ended; what they died of is above")
        return json.loads(line)

    async def _ask(self, question: str) -> Any:
        assert self._process.stdin
        self._process.stdin.write(f"{question}\n".encode())
        return await self.answer()


@asynccontextmanager
async def running_returners(
    port: int, channel: str, clients: int, jitter_seconds: float
) -> AsyncIterator[Crowd]:
    """Run it until the context ends; yield it once all are connected."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.returners"),
        *(str(port), channel, str(clients), str(jitter_seconds)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=LINE_BYTES,
    )
    try:
        crowd = Crowd(process)
        await crowd.answer()
        yield crowd
    finally:
        await end(process)
