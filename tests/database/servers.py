"""PostgreSQL servers for single tests: with settings, as standbys, and killed."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from brain.embedded.binaries import Binaries, find_binaries
from brain.embedded.processes import Account, complaint, read_postmaster, stop, suitable_account
from brain.errors import EmbeddedServerError

PATIENCE_SECONDS = 30.0
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "shared_buffers": "16MB",
    "max_connections": "50",
    # Throwaway data need not survive a power cut. It does survive a killed server.
    "fsync": "off",
    "full_page_writes": "off",
}


@dataclass(frozen=True)
class Server:
    """A running server; its superuser `postgres` may connect and replicate from loopback."""

    data: Path
    port: int
    binaries: Binaries
    process: subprocess.Popen[bytes]

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"postgresql://postgres@{self.address}/postgres"

    def die(self) -> None:
        """Stop the server at once, as in a power cut."""
        self.process.send_signal(signal.SIGQUIT)
        self.process.wait(PATIENCE_SECONDS)


async def binaries_of(url: str) -> Binaries:
    """Return the programs of the server at `url` if they are on this machine, else others."""
    connection = await asyncpg.connect(url)
    try:
        folder = Path(
            await connection.fetchval("SELECT setting FROM pg_config WHERE name = 'BINDIR'")
        )
    finally:
        await connection.close()
    return find_binaries(folder if (folder / "initdb").exists() else None)


@contextmanager
def new_server(binaries: Binaries, settings: Mapping[str, str] = {}) -> Iterator[Server]:
    """Run an empty server until the context ends."""
    account = suitable_account()
    binaries = account.within_reach(binaries)
    with data_folder(account) as data:
        account.run(
            binaries.initdb, "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "-N"
        )
        with running(data, account, binaries, settings) as server:
            yield server


@contextmanager
def standby_of(primary: Server) -> Iterator[Server]:
    """Run a standby of `primary`, which may be promoted, until the context ends."""
    account = suitable_account()
    source = f"host=127.0.0.1 port={primary.port} user=postgres"
    with data_folder(account) as data:
        copying = primary.binaries.folder / "pg_basebackup"
        account.run(copying, "-D", data, "-d", source, "-R", "-c", "fast", "--no-sync")
        with running(data, account, primary.binaries, {}) as server:
            yield server


@contextmanager
def data_folder(account: Account) -> Iterator[Path]:
    home = Path(tempfile.mkdtemp(prefix="brain-test-")).resolve()
    # Others may only pass through; the data in it is private to its owner.
    home.chmod(0o711)
    data = home / "data"
    data.mkdir(mode=0o700)
    account.give(data)
    try:
        yield data
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def running(
    data: Path, account: Account, binaries: Binaries, settings: Mapping[str, str]
) -> Iterator[Server]:
    port = free_port()
    named = {**SETTINGS, **settings, "port": str(port)}.items()
    options = [part for name, value in named for part in ("-c", f"{name}={value}")]
    log = data.parent / "server.log"
    process = account.start(binaries.postgres, "-D", data, *options, log=log)
    try:
        wait_until_ready(process, data, log)
        yield Server(data, port, binaries, process)
    finally:
        stop(process)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until_ready(process: subprocess.Popen[bytes], data: Path, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        postmaster = read_postmaster(data)
        if postmaster and postmaster.process_id == process.pid and postmaster.is_ready:
            return
        time.sleep(0.01)
    raise EmbeddedServerError(f"did not start: {complaint(log.read_text(errors='replace'))}")


def run(binaries: Binaries, program: str, *arguments: str | Path) -> str:
    """Run a client program to its end, and return its output."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    command = [binaries.folder / program, *arguments]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=PATIENCE_SECONDS
    )
    assert done.returncode == 0, f"{program}: {done.stderr}"
    return done.stdout + done.stderr
