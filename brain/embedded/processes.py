"""
PostgreSQL's processes: their user, their lifetime, and which of them runs on a data folder.

They refuse to run as root. There are two ways around it. In a user namespace root has the id of
`nobody`, files keep their owner, and every path stays reachable. Where namespaces are forbidden, as
in Docker, root switches to the user `nobody`, which has to own the data and reach the programs.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from brain.embedded.binaries import Binaries, copy_for_all, open_to_all
from brain.errors import EmbeddedServerError

# An id that is in /etc/passwd nearly everywhere: initdb refuses one that is not.
NOBODY = 65534
CALLED_NOBODY = ("unshare", "--user", f"--map-user={NOBODY}", f"--map-group={NOBODY}", "--")
SYSTEM_HOME = Path("/var/lib/brain")

PR_SET_PDEATHSIG = 1

STOP_SECONDS = 10
ORPHAN_SECONDS = 10
ORPHAN_GRACE_SECONDS = 2


@dataclass(frozen=True)
class Account:
    """The user that PostgreSQL's programs run as."""

    owner: int
    """The user id that has to own the data, as Brain sees it."""

    home: Path
    """Where data folders lie when none is given."""

    prefix: tuple[str, ...] = ()
    """Put before every command."""

    user: int | None = None
    """User and group id to change to before a command."""

    def run(self, *command: str | Path, stdin: str = "") -> None:
        """Run to the end; raises EmbeddedServerError with the last error."""
        with self._popen(command, stdin=subprocess.PIPE, output=subprocess.PIPE) as process:
            try:
                output, _ = process.communicate(stdin.encode())
            except BaseException:
                # Not killed: initdb ends the server that it runs, and removes what it made.
                process.terminate()
                raise
        if process.returncode:
            reason = complaint(output.decode(errors="replace")) or f"status {process.returncode}"
            raise EmbeddedServerError(f"{Path(command[0]).name} failed: {reason}")

    def start(self, *command: str | Path, log: Path) -> subprocess.Popen[bytes]:
        """Start a command that writes to a new log. It ends with the thread that starts it."""
        # Readable by the owner alone: PostgreSQL logs statements with their data.
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        try:
            return self._popen(command, stdin=subprocess.DEVNULL, output=output)
        finally:
            os.close(output)

    def _popen(
        self, command: tuple[str | Path, ...], *, stdin: int, output: int
    ) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*self.prefix, *command],
            stdin=stdin,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd="/",
            env=_environment(),
            user=self.user,
            group=self.user,
            extra_groups=None if self.user is None else [],
            # Otherwise Ctrl-C in a terminal stops the database before Brain has closed its clients.
            start_new_session=True,
            preexec_fn=_end_with_parent(),
        )

    def give(self, folder: Path) -> None:
        """
        Make the account the owner of a data folder.

        An earlier run with the other account may own it.
        """
        present = folder.stat().st_uid
        if present == self.owner:
            return
        if os.geteuid() != 0 or present not in (0, NOBODY):
            raise EmbeddedServerError(f"{folder} belongs to user {present}: run Brain as that user")
        # The folder itself comes last, so that an interrupted run is repeated.
        for parent, _, files in os.walk(folder, topdown=False):
            for name in (*files, "."):
                os.chown(Path(parent, name), self.owner, self.owner, follow_symlinks=False)

    def check_way_to(self, folder: Path) -> None:
        """Raise EmbeddedServerError if the account cannot get to this folder."""
        if self.user is not None and not open_to_all(folder):
            raise EmbeddedServerError(
                f"the user nobody, which runs PostgreSQL for root, cannot reach {folder}: "
                f"choose a folder below {self.home}"
            )

    def within_reach(self, binaries: Binaries) -> Binaries:
        """Return the binaries, or a copy of them that the account can run."""
        if self.user is None or open_to_all(binaries.folder):
            return binaries
        return copy_for_all(binaries, self.home)


def suitable_account() -> Account:
    """Return the way that works here: for root the namespace if there can be one."""
    if os.geteuid() != 0:
        return ordinary_account()
    probe = [*CALLED_NOBODY, "true"]
    if shutil.which("unshare") and subprocess.run(probe, capture_output=True).returncode == 0:
        return namespace_account()
    return nobody_account()


def ordinary_account() -> Account:
    """Programs run as the user of this process."""
    share = Path(os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share"))
    # Without a home folder the tilde is not expanded.
    return Account(os.geteuid(), share / "brain" if share.is_absolute() else SYSTEM_HOME)


def namespace_account() -> Account:
    """Programs run in a user namespace, where root has the id of `nobody`."""
    root = ordinary_account()
    return Account(root.owner, root.home, prefix=CALLED_NOBODY)


def nobody_account(home: Path = SYSTEM_HOME) -> Account:
    """Programs run as `nobody`, with their data below a home that is open to all."""
    return Account(NOBODY, home, user=NOBODY)


def complaint(output: str) -> str:
    """Return the last error in the output of a PostgreSQL program, or else its last line."""
    lines = [line for line in output.splitlines() if line.strip()]
    errors = re.findall(r"(?:FATAL|PANIC|ERROR|error): +(.+)", output)
    return (errors or lines or [""])[-1].strip()


def stop(process: subprocess.Popen[bytes]) -> None:
    """Request a fast shutdown, then an immediate one, then kill."""
    for request in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
        process.send_signal(request)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
            return


class Postmaster(NamedTuple):
    """What a server writes about itself into its data folder."""

    process_id: int
    port: int
    is_ready: bool


def read_postmaster(data: Path) -> Postmaster | None:
    """Return what a server has written, dead or alive; None while it is incomplete."""
    try:
        lines = (data / "postmaster.pid").read_bytes().splitlines()
        is_ready = len(lines) >= 8 and lines[7].strip() == b"ready"
        return Postmaster(abs(int(lines[0])), int(lines[3]), is_ready)
    except (FileNotFoundError, IndexError, ValueError):
        return None


def living_postmaster(data: Path) -> Postmaster | None:
    """Return the server that runs on the data folder now."""
    postmaster = read_postmaster(data)
    if postmaster is None:
        return None
    # Empty for a process that is dead but not yet reaped.
    command = _command_line(postmaster.process_id)
    return postmaster if "postgres" in command and f"-D {data} " in command else None


def await_orphan(data: Path) -> None:
    """Wait for the end of a server that outlived its Brain; request it if necessary."""
    begun = time.monotonic()
    asked = False
    while orphan := living_postmaster(data):
        waited = time.monotonic() - begun
        if waited > ORPHAN_SECONDS:
            raise EmbeddedServerError(
                f"a PostgreSQL without a Brain uses {data}: stop it with "
                f"kill -INT {orphan.process_id}"
            )
        if waited > ORPHAN_GRACE_SECONDS and not asked:
            os.kill(orphan.process_id, signal.SIGINT)
            asked = True
        time.sleep(0.02)
    _forget_recycled_process(data)


def _forget_recycled_process(data: Path) -> None:
    """
    Remove the pid file of a dead server if another program has its process id now.

    PostgreSQL would take that program for a server. PostgreSQL itself removes a pid file that is
    merely stale.
    """
    if postmaster := read_postmaster(data):
        with suppress(ProcessLookupError, PermissionError):
            os.kill(postmaster.process_id, 0)
            (data / "postmaster.pid").unlink()


def _command_line(process_id: int) -> str:
    """The program and its arguments, each followed by a space."""
    if not Path("/proc/self/cmdline").exists():
        listing = ["ps", "-p", str(process_id), "-o", "command="]
        return f"{subprocess.run(listing, capture_output=True, text=True).stdout.strip()} "
    try:
        arguments = Path(f"/proc/{process_id}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return os.fsdecode(arguments.replace(b"\0", b" "))


def _environment() -> dict[str, str]:
    """The environment without PG… variables; English messages, which `complaint` reads."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return {**kept, "LC_ALL": "C.UTF-8"}


def _end_with_parent() -> Callable[[], None] | None:
    """Return what a child runs before exec, so that kill -9 of Brain ends PostgreSQL as well."""
    if sys.platform != "linux":
        return None
    # Loaded before the fork: in the child no lock may be waited for.
    prctl = ctypes.CDLL(None).prctl
    parent = os.getpid()

    def ask_for_signal() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGINT)
        if os.getppid() != parent:
            os._exit(1)

    return ask_for_signal
