"""A Brain that runs as its users run it: a process, spoken to over the network."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from httpx2 import AsyncClient
from websockets.asyncio.client import ClientConnection, connect

PATIENCE_SECONDS = 20.0

READY = re.compile(r"http://localhost:(\d+)/\n")


@dataclass(frozen=True)
class RunningBrain:
    process: asyncio.subprocess.Process
    port: int
    output: Path

    @property
    def http(self) -> str:
        return f"http://localhost:{self.port}"

    @asynccontextmanager
    async def client(self, path: str = "/ws") -> AsyncIterator[ClientConnection]:
        """Connect to `path`, and take the greeting."""
        async with connect(f"ws://localhost:{self.port}{path}", proxy=None) as client:
            assert (await message(client))["type"] == "connected"
            yield client

    async def stopped(self) -> int:
        """Return the exit status, once it has stopped."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self.process.wait()


@asynccontextmanager
async def running_brain(
    folder: Path, *arguments: str, **environment: str
) -> AsyncIterator[RunningBrain]:
    """Run `brain serve` on a free port until the context ends."""
    output = folder / "brain.log"
    with output.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "brain", "serve", "--port", "0", *arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env=clean_environment() | environment,
        )
    try:
        port = int((await logged(output, READY, process))[1])
        yield RunningBrain(process, port, output)
    finally:
        if process.returncode is None:
            process.terminate()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await process.wait()


def clean_environment() -> dict[str, str]:
    """Return the environment without what would steer Brain."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("BRAIN_") and name not in ("DATABASE_URL", "HOST", "PORT")
    }


async def logged(
    output: Path, pattern: re.Pattern[str], process: asyncio.subprocess.Process | None = None
) -> re.Match[str]:
    """Return the first match of `pattern` in a log, once it is there."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            text = output.read_text()
            if match := pattern.search(text):
                return match
            assert process is None or process.returncode is None, text
            await asyncio.sleep(0.02)


async def message(client: ClientConnection) -> dict[str, Any]:
    """Return the next message."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        text = await client.recv()
    parsed: dict[str, Any] = json.loads(text)
    return parsed


async def get(url: str, accept: str = "*/*") -> tuple[int, str]:
    """Return the status and the body of an HTTP response."""
    async with AsyncClient(trust_env=False) as client:
        response = await client.get(url, headers={"accept": accept})
    return response.status_code, response.text


async def messages(client: ClientConnection, count: int) -> list[dict[str, Any]]:
    return [await message(client) for _ in range(count)]
