"""The Autobahn test suite, run against Brain's protocol class."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from starlette.types import Receive, Scope, Send
from websockets.frames import Frame, Opcode

from brain.close_codes import CloseCode
from brain.transport.websocket import EXTENSION, WebSocketProtocol
from brain.transport.websocket_connection import WebSocketConnection
from tests.transport.served import limited, served

EVERYTHING = ("*",)
# Without compression (12, 13), which Brain does not support, and large messages (9).
SHORT = ("1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*")

PASSED = frozenset({"OK", "NON-STRICT", "INFORMATIONAL", "UNIMPLEMENTED"})

UNBOUNDED = 2**40

# Some dependencies are found through .pth files, which Python reads in site folders only.
RUN = """
import site, sys
site.addsitedir(sys.argv.pop(1))
from autobahntestsuite.wstest import run
run()
"""


class Suite(NamedTuple):
    """The location of the test suite."""

    python: str
    """The Python 2.7 that runs it."""
    folder: Path
    """The target folder of `pip install --target` with `autobahntestsuite`."""


class Echo:
    """Sends back what it receives, over a connection that it was given."""

    going_away_code = CloseCode.SERVICE_RESTART

    def __init__(self, connection: WebSocketConnection) -> None:
        self._connection = connection

    def message_received(self, message: str | bytes) -> None:
        text = isinstance(message, str)
        data = message.encode() if isinstance(message, str) else message
        frame = Frame(Opcode.TEXT if text else Opcode.BINARY, data)
        self._connection.write(frame.serialize(mask=False))

    def pause_writing(self) -> None:
        pass

    def resume_writing(self) -> None:
        pass

    def connection_lost(self, code: int = 1006) -> None:
        pass


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    protocol: WebSocketProtocol = scope["extensions"][EXTENSION]
    connection = protocol.connection()
    protocol.take_over(connection, Echo(connection))


@asynccontextmanager
async def echo_server() -> AsyncIterator[int]:
    """Serve the echo without limits; yield the port."""
    limits = limited(
        frames_per_second=UNBOUNDED,
        message_bytes=2**26,
        fragments=UNBOUNDED,
        unread_bytes=UNBOUNDED,
        # The suite answers a ping in the middle of a frame that it has not sent whole.
        ping_seconds=3600,
    )
    async with served(echo, limits, lifespan="off") as (port, _):
        yield port


def find_suite() -> Suite | None:
    """Return the suite that AUTOBAHN names, if there is a Python to run it with."""
    folder = os.environ.get("AUTOBAHN")
    python = os.environ.get("PYTHON27") or shutil.which("python2.7")
    return Suite(python, Path(folder)) if folder and python else None


async def run_cases(suite: Suite, cases: Sequence[str], folder: Path) -> dict[str, str]:
    """Run the cases and return how each behaved; the reports are left in `folder`."""
    async with echo_server() as port:
        specification = folder / "fuzzingclient.json"
        specification.write_text(
            json.dumps(
                {
                    "outdir": str(folder / "reports"),
                    "servers": [{"agent": "Brain", "url": f"ws://127.0.0.1:{port}"}],
                    "cases": list(cases),
                    "exclude-cases": ["12.*", "13.*"],
                    "exclude-agent-cases": {},
                }
            )
        )
        process = await asyncio.create_subprocess_exec(
            *(suite.python, "-c", RUN, str(suite.folder)),
            *("-m", "fuzzingclient", "-s", str(specification)),
            cwd=folder,
            stdout=asyncio.subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        try:
            output, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    if process.returncode:
        raise RuntimeError(output.decode(errors="replace"))
    index = json.loads((folder / "reports" / "index.json").read_text())
    results: dict[str, str] = {}
    for case, outcome in index["Brain"].items():
        behaviours = {outcome["behavior"], outcome["behaviorClose"]}
        failed = behaviours - PASSED
        results[case] = failed.pop() if failed else outcome["behavior"]
    return results


def failures(results: dict[str, str]) -> dict[str, str]:
    """Return the cases that failed."""
    return {case: result for case, result in results.items() if result not in PASSED}


def summary(results: dict[str, str]) -> str:
    """Return the results in a line, with the cases that did not pass."""
    counts: dict[str, int] = {}
    for result in results.values():
        counts[result] = counts.get(result, 0) + 1
    line = ", ".join(f"{count} {result}" for result, count in sorted(counts.items()))
    not_passed = [case for case, result in results.items() if result not in PASSED]
    return f"{len(results)} cases: {line}" + (f" ({', '.join(not_passed)})" if not_passed else "")


if __name__ == "__main__":
    found = find_suite()
    if found is None:
        sys.exit("set AUTOBAHN to the folder of the test suite: see docs/contributing.md")
    reports = Path("autobahn").resolve()
    reports.mkdir(exist_ok=True)
    outcome = asyncio.run(run_cases(found, sys.argv[1:] or EVERYTHING, reports))
    print(summary(outcome))
    print(f"reports: {reports / 'reports' / 'index.html'}")
    sys.exit(1 if failures(outcome) else 0)
