"""
The PostgreSQL server that belongs to one Brain process: made, started and ended with it.

    folder/                 locked (flock) for as long as a Brain uses it
        server.log          of the present run
        data/               whole: it is renamed into place when it is finished
        unfinished-*/       left behind by a Brain that was killed while it made the data

Needs Unix.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from brain.embedded.binaries import Binaries, find_binaries
from brain.embedded.processes import (
    Account,
    await_orphan,
    complaint,
    living_postmaster,
    read_postmaster,
    stop,
    suitable_account,
)
from brain.errors import EmbeddedServerError

ROLE = "cecelia"
# The first is where `psql -h localhost` looks.
PORTS = range(5432, 5533)
LOOPBACK = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))
EPHEMERAL_PREFIX = "brain-ephemeral-"
OTHER_FOLDER = "choose another folder with XDG_DATA_HOME, or `brain serve --ephemeral`"
START_SECONDS = 60

# Every user of this machine can connect, without a password.
ACCESS = """\
host all {role} 127.0.0.1/32 trust
host all {role} ::1/128 trust
"""

SETTINGS = {
    "listen_addresses": "localhost",
    # No socket file: no limit on the length of its path, no lock file beside it.
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "64MB",
}
# Throwaway data need not survive a power cut.
EPHEMERAL_SETTINGS = {"fsync": "off", "full_page_writes": "off"}


@dataclass(frozen=True)
class EmbeddedServer:
    """A running server; it ends with the context that yielded it."""

    port: int
    folder: Path
    binaries: Binaries
    process: subprocess.Popen[bytes]

    @property
    def process_id(self) -> int:
        return self.process.pid

    @property
    def has_ended(self) -> bool:
        """True if it has ended before its context."""
        return self.process.poll() is not None

    @property
    def url(self) -> str:
        return _url(self.port)


def default_folder(major: int, account: Account | None = None) -> Path:
    """Return the default data folder of a server of this major version."""
    return (account or suitable_account()).home / f"postgres-{major}"


def running_url(folder: Path) -> str | None:
    """Return the URL of the server that runs on this folder now, if there is one."""
    with _translating_errors(folder):
        postmaster = living_postmaster(folder.resolve() / "data")
    return _url(postmaster.port) if postmaster and postmaster.is_ready else None


@contextmanager
def serve_embedded(
    folder: Path | None = None,
    *,
    binaries: Binaries | None = None,
    superuser: bool = False,
    settings: Mapping[str, str] = {},
    account: Account | None = None,
) -> Iterator[EmbeddedServer]:
    """
    Run a server on this folder, or on a throwaway one, until the context is left.

    Start it from a thread that lives as long as the server should: on Linux the server ends with
    that thread, also by kill -9. Whether the role is a superuser is settled when the folder is
    made. Raises EmbeddedServerError.
    """
    account = account or suitable_account()
    ephemeral_settings = {} if folder else EPHEMERAL_SETTINGS
    with ExitStack() as stack:
        with _translating_errors(folder):
            binaries = account.within_reach(binaries or find_binaries())
            home = stack.enter_context(_lasting_folder(folder) if folder else _ephemeral_folder())
            account.check_way_to(home)
            await_orphan(home / "data")
            for leftover in home.glob("unfinished-*"):
                shutil.rmtree(leftover, ignore_errors=True)
            if not (home / "data").exists():
                _make(home, binaries, account, superuser=superuser, durable=folder is not None)
            account.give(home / "data")
            _check_version(home, binaries)
            all_settings = {**SETTINGS, **ephemeral_settings, **settings}
            server = stack.enter_context(_running(home, binaries, account, all_settings))
        yield server


@contextmanager
def _translating_errors(folder: Path | None) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        place = error.filename or folder or tempfile.gettempdir()
        way_out = OTHER_FOLDER if folder else "choose another folder with TMPDIR"
        raise EmbeddedServerError(
            f"cannot keep a database in {place}: {error.strerror or error}; {way_out}"
        ) from error


@contextmanager
def _lasting_folder(folder: Path) -> Iterator[Path]:
    folder.mkdir(mode=0o711, parents=True, exist_ok=True)
    folder = folder.resolve()
    with _held(folder):
        yield folder


@contextmanager
def _ephemeral_folder() -> Iterator[Path]:
    _sweep()
    folder = Path(tempfile.mkdtemp(prefix=EPHEMERAL_PREFIX)).resolve()
    # Others may only pass through: the data within is readable by its owner alone.
    folder.chmod(0o711)
    with _held(folder):
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _sweep() -> None:
    """Remove throwaway folders that killed Brains of this user left behind."""
    for folder in Path(tempfile.gettempdir()).glob(f"{EPHEMERAL_PREFIX}*"):
        # A failure here must not stop this Brain.
        with suppress(OSError, EmbeddedServerError):
            # An empty one may have been made a moment ago and not be held yet.
            if folder.lstat().st_uid == os.geteuid() and any(folder.iterdir()):
                with _held(folder):
                    _remove_unless_alive(folder)


def _remove_unless_alive(folder: Path) -> None:
    if orphan := living_postmaster(folder / "data"):
        # The next sweep finds it gone.
        os.kill(orphan.process_id, signal.SIGINT)
    else:
        shutil.rmtree(folder)


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Lock the folder itself: a lock file could be deleted, and made anew by another Brain."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        _lock(descriptor, folder)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        postmaster = read_postmaster(folder / "data")
        known = f" (its PostgreSQL is process {postmaster.process_id})" if postmaster else ""
        raise EmbeddedServerError(
            f"another Brain uses {folder}{known}: stop it, or {OTHER_FOLDER}"
        ) from None


def _make(
    home: Path, binaries: Binaries, account: Account, *, superuser: bool, durable: bool
) -> None:
    """Make the data folder with the role and its database."""
    # A unique name: an initdb of a killed Brain may still be cleaning up.
    data = Path(tempfile.mkdtemp(prefix="unfinished-", dir=home))
    account.give(data)
    locale = "C.UTF-8" if sys.platform == "linux" else "C"
    options = f"-U postgres -A trust -E UTF8 --locale={locale} --no-sync".split()
    account.run(binaries.initdb, "-D", data, *options)
    # Only the role can log in; not the superuser, unless the role is one.
    (data / "pg_hba.conf").write_text(ACCESS.format(role="all" if superuser else ROLE))
    rights = "SUPERUSER" if superuser else "CREATEDB CREATEROLE"
    statements = f"CREATE ROLE {ROLE} LOGIN {rights}\nCREATE DATABASE {ROLE} OWNER {ROLE}\n"
    options = "-F -c exit_on_error=on postgres".split()
    account.run(binaries.postgres, "--single", "-D", data, *options, stdin=statements)
    if durable:
        account.run(binaries.initdb, "--sync-only", "-D", data)
    data.rename(home / "data")


def _check_version(home: Path, binaries: Binaries) -> None:
    version = home / "data" / "PG_VERSION"
    if not version.exists():
        raise EmbeddedServerError(f"{version.parent} holds no database: {OTHER_FOLDER}")
    major = version.read_text().strip()
    if major != str(binaries.major):
        raise EmbeddedServerError(
            f"{home} holds data of PostgreSQL {major}, but {binaries.folder} is PostgreSQL "
            f"{binaries.major}: {OTHER_FOLDER}, or move the data with pg_dump"
        )


@contextmanager
def _running(
    home: Path, binaries: Binaries, account: Account, settings: Mapping[str, str]
) -> Iterator[EmbeddedServer]:
    """Start the server on the first port that it gets, and stop it in the end."""
    log = home / "server.log"
    for port in _free_ports():
        named = {**settings, "port": str(port)}.items()
        options = [part for name, value in named for part in ("-c", f"{name}={value}")]
        process = account.start(binaries.postgres, "-D", home / "data", *options, log=log)
        try:
            is_ready = _becomes_ready(process, home / "data")
            output = log.read_text(errors="replace")
            # PostgreSQL starts with one of two addresses; clients may resolve localhost to either.
            lost_the_port = "Address already in use" in output
            if is_ready and not lost_the_port:
                yield EmbeddedServer(port, home, binaries, process)
                return
        finally:
            stop(process)
        if not lost_the_port:
            raise EmbeddedServerError(f"PostgreSQL did not start on {home}: {complaint(output)}")
    raise EmbeddedServerError(f"no port from {PORTS[0]} to {PORTS[-1]} is free: free one of them")


def _free_ports() -> Iterator[int]:
    for port in PORTS:
        if not any(_is_taken(family, address, port) for family, address in LOOPBACK):
            yield port


def _is_taken(family: socket.AddressFamily, address: str, port: int) -> bool:
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address, port))
    except OSError as error:
        # Any other one means that there is no IPv6 here.
        return error.errno == errno.EADDRINUSE
    return False


def _becomes_ready(process: subprocess.Popen[bytes], data: Path) -> bool:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        postmaster = read_postmaster(data)
        if postmaster and postmaster.process_id == process.pid and postmaster.is_ready:
            return True
        time.sleep(0.01)
    return False


def _url(port: int) -> str:
    return f"postgresql://{ROLE}@localhost:{port}/{ROLE}"
