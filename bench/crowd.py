"""Starts and controls `bench.returners`, the process of the clients that reconnect."""

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

# How long a client may take to receive the last message.
PATIENCE_SECONDS = 120.0


@dataclass
class Report:
    """Totals over all clients. Times are those of `time.monotonic()`."""

    attempts: int = 0
    """Attempts to connect."""
    greeted: int = 0
    """Attempts for which the client received the greeting."""
    greeted_last_at: float = 0.0
    """When a client last received the greeting."""
    delivered_at: dict[int, float] = field(default_factory=dict)
    """For each message number, when the last client received it."""
    lost: int = 0
    doubled: int = 0
    """Messages that a client received again, or out of order."""
    resets: int = 0
    """How many `reset` messages clients received: Brain could not resume them."""
    closed: dict[str, int] = field(default_factory=dict)
    """For each reason, how many connections and attempts ended with it."""
    lost_first_at: float = 0.0
    """When the first connection ended."""
    cpu_seconds: float = 0.0
    """Processor time of `bench.returners` from `lost_first_at` to `greeted_last_at`."""


class Crowd:
    """Controls the process: one line per command, one line of JSON per reply."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def live(self) -> None:
        """Wait until all clients are connected and have received the newest message."""
        await self._request("live")

    async def finish(self, number: int) -> Report:
        """Wait until all clients have received the last message, which has this number."""
        values = await self._request(f"finish {number}")
        delivered_at = {int(key): at for key, at in values.pop("delivered_at").items()}
        return Report(delivered_at=delivered_at, **values)

    async def reply(self) -> Any:
        """Return the next reply."""
        assert self._process.stdout
        async with asyncio.timeout(PATIENCE_SECONDS * 3):
            line = await self._process.stdout.readline()
        if not line:
            raise ConnectionError("the client process has ended; its error is printed above")
        return json.loads(line)

    async def _request(self, command: str) -> Any:
        assert self._process.stdin
        self._process.stdin.write(f"{command}\n".encode())
        return await self.reply()


@asynccontextmanager
async def running_returners(
    port: int, channel: str, clients: int, jitter_seconds: float
) -> AsyncIterator[Crowd]:
    """Run the process until the context ends; yield once all clients are connected."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.returners"),
        *(str(port), channel, str(clients), str(jitter_seconds)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=LINE_BYTES,
    )
    try:
        crowd = Crowd(process)
        await crowd.reply()
        yield crowd
    finally:
        await end(process)
