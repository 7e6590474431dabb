"""The documents' programs, and what they print."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.end_to_end.brain import PATIENCE_SECONDS, running
from tests.seeds.heartbeats import is_heartbeat
from tests.seeds.packages import Packages

# By default, node prints logged values in a form that cannot be parsed.
AS_JSON = "console.log = (...values) => process.stdout.write(JSON.stringify(values) + '\\n');\n"

# Not through a proxy that the environment may name.
DIRECTLY = {"no_proxy": "localhost", "NO_PROXY": "localhost"}


class Program:
    """A running program, whose output is read line by line."""

    def __init__(self, process: asyncio.subprocess.Process, output: Path) -> None:
        self._process = process
        self._output = output
        self._read = 0

    async def line(self) -> str:
        """Return the next line that it prints."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not self._lines()[self._read : self._read + 1]:
                assert self._process.returncode is None, self._output.read_text()
                await asyncio.sleep(0.02)
        self._read += 1
        return self._lines()[self._read - 1]

    async def next_logged(self) -> list[Any]:
        """Return the values that a program under node logs next, except heartbeats."""
        values: list[Any] = json.loads(await self.line())
        return await self.next_logged() if is_heartbeat(values[-1]) else values

    async def message(self) -> dict[str, Any]:
        """Return the next message that wscat prints, except heartbeats."""
        # Without a terminal, wscat prints its prompt before the line.
        message: dict[str, Any] = json.loads((await self.line()).removeprefix("> "))
        return await self.message() if is_heartbeat(message) else message

    def type(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())

    def _lines(self) -> list[str]:
        text = self._output.read_text(encoding="utf-8")
        return text[: text.rfind("\n") + 1].splitlines()


@asynccontextmanager
async def program(
    folder: Path, command: Sequence[str], environment: dict[str, str]
) -> AsyncIterator[Program]:
    """Run a program until the context ends."""
    output = folder / "program.log"
    # wscat exits at the end of its input: the pipe stays open.
    pipe = asyncio.subprocess.PIPE
    async with running(command, output, {**DIRECTLY, **environment}, stdin=pipe) as process:
        yield Program(process, output)


@asynccontextmanager
async def under_node(folder: Path, packages: Packages, code: str) -> AsyncIterator[Program]:
    """Run a script for node."""
    (folder / "as_json.cjs").write_text(AS_JSON)
    (folder / "snippet.cjs").write_text(code, encoding="utf-8")
    command = ("node", "-r", str(folder / "as_json.cjs"), str(folder / "snippet.cjs"))
    async with program(folder, command, packages.environment) as running:
        yield running


@asynccontextmanager
async def wscat(folder: Path, packages: Packages, session: str) -> AsyncIterator[Program]:
    """Run the `wscat` command of a session, without typing anything yet."""
    line = next(line for line in session.splitlines() if line.startswith("wscat "))
    command = ("bash", "-c", f"exec {packages.command('wscat')} {line.removeprefix('wscat ')}")
    async with program(folder, command, {}) as running:
        yield running


def typed(session: str) -> list[str]:
    """Return the lines that are typed after the prompt in a session with wscat."""
    return [line.removeprefix("> ") for line in session.splitlines() if line.startswith("> ")]
