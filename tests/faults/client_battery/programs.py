"""Programs that follow the orders: one of the Python client, and `brain listen`."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Protocol

from brain.client import Brain
from tests.end_to_end.brain import clean_environment
from tests.faults.client_battery.orders import IS_OPEN
from tests.faults.client_battery.receipts import Receipts
from tests.faults.client_battery.surroundings import token

WATCHDOG_SECONDS = 1.5
"""Instead of the 45 s after which a silent connection is given up."""
PRINTED_BYTES = 1 << 20


@dataclass
class Request:
    """What a program subscribes to, and how."""

    url: str
    folder: Path
    """For its cursor file, and its token."""
    is_of_open_orders: bool
    has_snapshot: bool
    keeps_cursor: bool
    has_token: bool = False
    slowness_seconds: float = 0.0
    """The longest that it takes over a change."""

    @property
    def cursor_file(self) -> Path | None:
        return self.folder / "orders.cursor" if self.keeps_cursor else None

    @property
    def token_file(self) -> Path | None:
        return self.folder / "token" if self.has_token else None

    def renew_token(self, seconds: float) -> None:
        """Let the program have a token that is valid for so many seconds, if it needs one."""
        if self.token_file is not None:
            next_file = self.token_file.with_suffix(".next")
            next_file.write_text(token(seconds))
            next_file.replace(self.token_file)


class Program(Protocol):
    """A program that runs from `start` to `kill`, and can be started again."""

    receipts: Receipts

    async def start(self) -> None: ...

    async def kill(self) -> None: ...

    def problem(self) -> str | None:
        """Return why it has ended, if it has."""
        ...


@dataclass
class PythonProgram:
    """Runs in this process. To be killed, it is cancelled wherever it waits."""

    request: Request
    chance: Random
    receipts: Receipts = field(default_factory=Receipts)
    _task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._follow())

    async def kill(self) -> None:
        task = self._task
        if task is not None:
            task.cancel()
            # `problem` tells what it raised.
            await asyncio.wait([task])
            self._task = None

    def problem(self) -> str | None:
        if self._task is None or not self._task.done() or self._task.cancelled():
            return None
        return repr(self._task.exception())

    async def _follow(self) -> None:
        request = self.request
        where = {"status": IS_OPEN} if request.is_of_open_orders else None
        read_token = None if request.token_file is None else request.token_file.read_text
        async with Brain(request.url, token=read_token, cursor_file=request.cursor_file) as brain:
            async for change in brain.subscribe(
                "orders", snapshot=request.has_snapshot, where=where
            ):
                # Killed before it has handled a change, it has to be sent it again.
                await self._pause()
                self.receipts.take(asdict(change))
                await self._pause()

    async def _pause(self) -> None:
        if self.chance.random() < 0.2:
            await asyncio.sleep(self.chance.uniform(0, self.request.slowness_seconds))


@dataclass
class ListenProgram:
    """`brain listen` with a pipe for its output."""

    request: Request
    chance: Random
    receipts: Receipts = field(default_factory=Receipts)
    _process: asyncio.subprocess.Process | None = None
    _reading: asyncio.Task[None] | None = None

    async def start(self) -> None:
        log = self.request.folder / "listen.log"
        with log.open("ab") as stderr:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", PROGRAM.format(seconds=WATCHDOG_SECONDS)),
                *self._arguments(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=stderr,
                env=clean_environment(),
                limit=PRINTED_BYTES,
            )
        self._reading = asyncio.create_task(self._read(self._process))

    async def kill(self) -> None:
        process, reading = self._process, self._reading
        if process is None or reading is None:
            return
        if process.returncode is None:
            process.kill()
        # What it had printed by then is read to its end.
        await process.wait()
        await reading
        self._process = self._reading = None

    def problem(self) -> str | None:
        process = self._process
        if process is None or process.returncode is None:
            return None
        log = (self.request.folder / "listen.log").read_text()
        return f"brain listen has ended with status {process.returncode}: {log[-1000:]}"

    def _arguments(self) -> list[str]:
        request = self.request
        options = ["--url", request.url, "--json", "--give-up", "1h"]
        if request.is_of_open_orders:
            options += ["--where", f"status={IS_OPEN}"]
        if request.has_snapshot:
            options.append("--snapshot")
        if request.cursor_file is not None:
            options += ["--cursor-file", str(request.cursor_file)]
        if request.token_file is not None:
            options += ["--token-file", str(request.token_file)]
        return ["listen", "orders", *options]

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            if not line.endswith(b"\n"):
                break  # It was killed while it printed.
            self.receipts.take(json.loads(line, parse_float=Decimal))
            if self.chance.random() < 0.3:
                await asyncio.sleep(self.chance.uniform(0, self.request.slowness_seconds))


PROGRAM = """
import sys
import brain.client.connection
from brain.cli.main import main
brain.client.connection.WATCHDOG_SECONDS = {seconds}
sys.exit(main())
"""
