"""The processes that scenarios stop and kill, each by its own handle."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from random import SystemRandom
from shutil import rmtree
from time import monotonic, sleep

from brain.embedded.binaries import Binaries, find_binaries
from brain.embedded.processes import read_postmaster, stop, suitable_account
from tests.end_to_end.brain import clean_environment

START_SECONDS = 60.0
END_SECONDS = 30.0
REPLACEMENT_SECONDS = 120.0
REPLACED, NOT_REPLACED = "all workers are replaced", " is not replaced: "
# Below the ephemeral ports, and above those of Brain's embedded server.
PORTS = range(15000, 31000)

POSTGRES_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "64MB",
}


class DidNotStart(Exception):
    """A server ended before it was ready, or took too long."""


class OwnPostgres:
    """A PostgreSQL that flushes its commits to disk, and can be stopped and started again."""

    def __init__(self, folder: Path, binaries: Binaries, settings: Mapping[str, str]) -> None:
        self._account = suitable_account()
        self._data = folder / "data"
        self._log = folder / "postgres.log"
        self._binaries = self._account.within_reach(binaries)
        self._settings = settings
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        # The server ends with the thread that starts it.
        self._thread = ThreadPoolExecutor(1)

    @property
    def url(self) -> str:
        return f"postgresql://cecelia@127.0.0.1:{self._port}/postgres"

    async def make(self) -> None:
        """Create the data folder; every local user may log in as the superuser `cecelia`."""
        self._data.mkdir(mode=0o700)
        self._account.give(self._data)
        options = "-U cecelia -A trust -E UTF8 --locale=C --no-sync".split()
        await self._in_thread(
            partial(self._account.run, self._binaries.initdb, "-D", self._data, *options)
        )

    async def start(self) -> None:
        await self._in_thread(self._start)

    async def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop it: SIGINT is a fast shutdown, SIGQUIT an immediate one, without a checkpoint."""
        process = self._process
        if process is not None:
            process.send_signal(how)
            await self._in_thread(partial(process.wait, END_SECONDS))

    async def kill(self) -> None:
        """Kill it, and all of its processes, with kill -9."""
        process = self._process
        assert process is not None
        for one in (process.pid, *child_processes(process.pid)):
            with suppress(ProcessLookupError):
                os.kill(one, signal.SIGKILL)
        await self._in_thread(partial(process.wait, END_SECONDS))

    def close(self) -> None:
        """Stop it, if it is running."""
        if self._process is not None and self._process.poll() is None:
            stop(self._process)
        self._thread.shutdown()

    def _start(self) -> None:
        settings = {**POSTGRES_SETTINGS, **self._settings, "port": str(self._port)}
        options = [part for item in settings.items() for part in ("-c", "=".join(item))]
        self._process = self._account.start(
            self._binaries.postgres, "-D", self._data, *options, log=self._log
        )
        deadline = monotonic() + START_SECONDS
        while self._process.poll() is None and monotonic() < deadline:
            postmaster = read_postmaster(self._data)
            if postmaster and postmaster.process_id == self._process.pid and postmaster.is_ready:
                return
            sleep(0.01)
        raise DidNotStart(self._log.read_text(errors="replace"))

    async def _in_thread(self, work: Callable[[], object]) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, work)


@asynccontextmanager
async def own_postgres(
    folder: Path | None = None, settings: Mapping[str, str] = {}
) -> AsyncIterator[OwnPostgres]:
    """Run a PostgreSQL until the context ends, from the programs in `folder` or those found."""
    home = Path(tempfile.mkdtemp(prefix="brain-faults-")).resolve()
    # Others may pass through it: the server may run as another user.
    home.chmod(0o711)
    server = OwnPostgres(home, find_binaries(folder), settings)
    try:
        await server.make()
        await server.start()
        yield server
    finally:
        server.close()
        rmtree(home, ignore_errors=True)


def child_processes(process: int) -> list[int]:
    children = Path(f"/proc/{process}/task/{process}/children").read_text()
    return [int(child) for child in children.split()]


class Node:
    """A `brain serve` that keeps its port when it is restarted."""

    def __init__(self, database: str, folder: Path, settings: Mapping[str, str]) -> None:
        self.port = free_port()
        self._database = database
        self._settings = settings
        self._log = folder / f"brain-{self.port}.log"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it, and return once it follows the database."""
        arguments = ("serve", "--port", str(self.port), "--systems", "all")
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "brain", *arguments),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={
                    **clean_environment(),
                    "BRAIN_SYSTEMS": "all",
                    "BRAIN_DATABASE_URL": self._database,
                    **self._settings,
                },
            )
        async with asyncio.timeout(START_SECONDS):
            while not await is_ready(self.port):
                if self._process.returncode is not None:
                    raise DidNotStart(self._log.read_text())
                await asyncio.sleep(0.03)

    async def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        """End it by a signal; return the exit status."""
        process = self._process
        assert process is not None
        if process.returncode is None:
            process.send_signal(how)
        async with asyncio.timeout(END_SECONDS):
            return await process.wait()

    async def replace_workers(self) -> None:
        """Replace its workers, and return once that is done."""
        process = self._process
        assert process is not None
        done = self._log.read_text().count(REPLACED)
        process.send_signal(signal.SIGUSR2)
        async with asyncio.timeout(REPLACEMENT_SECONDS):
            while (log := self._log.read_text()).count(REPLACED) == done:
                if NOT_REPLACED in log:
                    raise DidNotStart(log)
                await asyncio.sleep(0.05)

    async def close(self) -> None:
        if self._process is not None:
            await self.end(signal.SIGKILL)


async def is_ready(port: int) -> bool:
    """Return True if the Brain on this port follows the database."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    try:
        writer.write(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        return b" 200 " in await reader.readline()
    except OSError:
        return False
    finally:
        writer.close()


def free_port() -> int:
    """Return a free port that is not an ephemeral one."""
    # Not from the seed: several batteries may run on one machine.
    while True:
        port = SystemRandom().choice(PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
