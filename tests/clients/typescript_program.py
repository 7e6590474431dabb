"""A program under node that uses the TypeScript client as a test says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.end_to_end.brain import PATIENCE_SECONDS, ended, running

CLIENT = Path(__file__).parents[2] / "clients" / "typescript"

Printed = dict[str, Any]


class TypeScriptProgram:
    """clients/typescript/test/program.ts: commands go in, what the client does comes out."""

    def __init__(self, process: asyncio.subprocess.Process, output: Path) -> None:
        self._process = process
        self._output = output

    def command(self, name: str, *given: object) -> None:
        """Have it carry out a command."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([name, *given]).encode() + b"\n")

    @property
    def printed(self) -> list[Printed]:
        """What it has printed so far."""
        complete = self._output.read_text().split("\n")[:-1]
        return [json.loads(line) for line in complete if line.startswith('{"')]

    def named(self, name: str) -> list[Printed]:
        return [one for one in self.printed if one.get("name") == name]

    @property
    def status(self) -> Printed:
        """The latest status."""
        statuses: list[Printed] = [one["status"] for one in self.printed if "status" in one]
        return statuses[-1] if statuses else {"state": None}

    def answers(self, command: str) -> list[Printed]:
        return [one for one in self.printed if one.get("done") == command]

    def changes(self, name: str) -> list[Printed]:
        return [one["change"] for one in self.named(name) if "change" in one]

    async def comes_to(self, condition: Callable[[], object]) -> None:
        """Return once `condition` holds."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not condition():
                    assert self._process.returncode is None, self._output.read_text()
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(self._output.read_text()[-3000:]) from None

    async def shows(self, name: str, rows: list[Printed]) -> None:
        """Return once the collection of this name has these rows, in any order, and is ready."""
        expected = sorted(rows, key=str)

        def is_shown() -> bool:
            latest = [one for one in self.named(name) if "rows" in one][-1:]
            return any(one["ready"] and sorted(one["rows"], key=str) == expected for one in latest)

        await self.comes_to(is_shown)

    async def is_live(self) -> None:
        await self.comes_to(lambda: self.status["state"] == "live")


async def bundled(source: Path, folder: Path, packages: Path) -> Path:
    """Return a TypeScript program with all that it imports, as one file."""
    script = folder / f"{source.stem}.mjs"
    command = (
        *(
            str(packages / "node_modules" / ".bin" / "esbuild"),
            str(source),
            "--bundle",
            "--platform=node",
        ),
        *("--format=esm", "--mangle-props=^_", "--target=es2022", f"--outfile={script}"),
        "--log-level=warning",
    )
    done = await ended(command, {"NODE_PATH": str(packages / "node_modules")})
    assert (done.status, done.stderr) == (0, ""), done.stderr
    return script


@asynccontextmanager
async def typescript_program(
    script: Path, folder: Path, environment: Mapping[str, str] = {}
) -> AsyncIterator[TypeScriptProgram]:
    """Run the program until the context ends."""
    folder.mkdir(exist_ok=True)
    output = folder / "client.log"
    # Node 20 has a WebSocket only if it is asked for.
    command = ("node", "--experimental-websocket", "--no-warnings", str(script))
    async with running(command, output, environment, stdin=asyncio.subprocess.PIPE) as process:
        yield TypeScriptProgram(process, output)
