"""A Brain that runs as its users run it: a process, spoken to over the network."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
from httpx2 import AsyncClient
from websockets.asyncio.client import ClientConnection, connect

PATIENCE_SECONDS = 40.0

# Followed by what to type next, and an empty line.
READY = re.compile(r"open +http://\S+:(\d+)/\n(.+\n)+\n")
NOBODY = 65534

# The last would have Python compile Brain anew at every start.
STEERING = ("DATABASE_URL", "HOST", "PORT", "PYTHONDONTWRITEBYTECODE")


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
        """Connect to `path`, and take the first message."""
        async with connect(f"ws://localhost:{self.port}{path}", proxy=None) as client:
            assert (await message(client))["type"] in ("connected", "auth")
            yield client

    async def stopped(self) -> int:
        """Return the exit status, once it has stopped."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self.process.wait()


@asynccontextmanager
async def running_brain(
    folder: Path, *arguments: str, **environment: str
) -> AsyncIterator[RunningBrain]:
    """Run `brain serve` on a free port, with all systems on, until the context ends."""
    environment = {"BRAIN_SYSTEMS": "all", **environment}
    command = (sys.executable, "-m", "brain", "serve", "--port", "0", *arguments)
    output = folder / "brain.log"
    async with running(command, output, environment) as process:
        port = int((await logged(output, READY, process))[1])
        yield RunningBrain(process, port, output)


@asynccontextmanager
async def running(
    command: Sequence[str],
    output: Path,
    environment: Mapping[str, str],
    *,
    stdin: int = asyncio.subprocess.DEVNULL,
    cwd: Path | None = None,
    is_nobody: bool = False,
    starts_session: bool = False,
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a command, with what it prints in a file, until the context ends."""
    with output.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=stdin,
            stdout=file,
            stderr=file,
            cwd=cwd,
            env={**clean_environment(), **environment},
            user=NOBODY if is_nobody else None,
            group=NOBODY if is_nobody else None,
            extra_groups=[] if is_nobody else None,
            start_new_session=starts_session,
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await process.wait()


class Ended(NamedTuple):
    """What is left of a command."""

    status: int
    stdout: str
    stderr: str


async def ended(
    command: Sequence[str],
    environment: Mapping[str, str] = {},
    *,
    cwd: Path | None = None,
    patience_seconds: float = PATIENCE_SECONDS,
) -> Ended:
    """Run a command to its end."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=cwd,
        env={**clean_environment(), **environment},
    )
    try:
        async with asyncio.timeout(patience_seconds):
            stdout, stderr = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return Ended(process.returncode, stdout.decode(), stderr.decode())


async def brain(*arguments: str, **environment: str) -> Ended:
    """Run `brain` to its end."""
    return await ended((sys.executable, "-m", "brain", *arguments), environment)


async def becomes(condition: Callable[[], object]) -> None:
    """Return once `condition` holds."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():
            await asyncio.sleep(0.01)


def clean_environment() -> dict[str, str]:
    """Return the environment without what would steer Brain, or slow it down."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("BRAIN_") and name not in STEERING
    }


async def logged(
    output: Path,
    pattern: re.Pattern[str],
    process: asyncio.subprocess.Process | None = None,
    patience_seconds: float = PATIENCE_SECONDS,
) -> re.Match[str]:
    """Return the first match of `pattern` in a log, once it is there."""
    async with asyncio.timeout(patience_seconds):
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


async def has_sent_everything(brain: RunningBrain, database: str) -> None:
    """Return once a Brain has sent everything that was committed before."""
    async with brain.client("/ws?channel=fence") as client:
        connection = await asyncpg.connect(database)
        await connection.execute("SELECT brain.publish('fence', 'now', '{}')")
        await connection.close()
        while (await message(client))["type"] != "now":
            pass


async def get(url: str, accept: str = "*/*") -> tuple[int, str]:
    """Return the status and the body of an HTTP response."""
    async with AsyncClient(trust_env=False) as client:
        response = await client.get(url, headers={"accept": accept})
    return response.status_code, response.text


async def messages(client: ClientConnection, count: int) -> list[dict[str, Any]]:
    return [await message(client) for _ in range(count)]
