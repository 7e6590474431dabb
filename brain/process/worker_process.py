"""One worker process, as its supervisor sees it."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from contextlib import suppress
from dataclasses import dataclass, field

from brain.process.worker import LEAVING, READY, REPLACED

# How long a worker may take to become ready.
STARTUP_SECONDS = 60.0
# How long one that hangs may take to write its stacks.
DUMP_SECONDS = 2.0
# A worker that has served for so long did not fail at start-up.
STEADY_SECONDS = 5.0
READ_BYTES = 4096
# What a worker writes that is ready: see `Worker.ready`.
LEAVING_SECONDS = re.compile(re.escape(READY) + rb"([0-9]+\.[0-9]);")
MOST_REPORT_BYTES = 32


@dataclass(eq=False)
class WorkerProcess:
    """One process of a slot: what it has reported, and whether it hangs."""

    number: int
    """See `Assignment.process_number`."""
    process_id: int
    connection: socket.socket
    """Yields what it reports, and the end of file when it has ended."""
    is_fresh: bool
    """True if it runs what was installed when it began, and not what the supervisor runs."""
    started_at: float = field(default_factory=time.monotonic)
    ready_at: float | None = None
    reported_at: float = 0.0
    """When it has reported something last, as a heartbeat."""
    hung_at: float | None = None
    """When it was found to hang; from then on it is being ended."""
    left_at: float | None = None
    """When it began to take leave of its clients."""
    leaving_seconds: float | None = None
    """How long it may do so, if it has reported that."""
    _unparsed: bytes = b""
    """The end of what it has reported, as long as it has not reported that."""
    _is_killed: bool = False

    @property
    def is_ready(self) -> bool:
        return self.ready_at is not None

    @property
    def is_steady(self) -> bool:
        return self.ready_at is not None and time.monotonic() - self.ready_at >= STEADY_SECONDS

    def receive(self) -> bytes:
        """Take what it has reported, which is nothing if it has ended."""
        received = b""
        with suppress(ConnectionResetError):  # it has not read the last that it was sent
            received = self.connection.recv(READ_BYTES)
        self.reported_at = time.monotonic()
        if READY in received:
            self.ready_at = self.reported_at
        if LEAVING in received and self.left_at is None:
            self.left_at = self.reported_at
        if self.leaving_seconds is None:
            self._unparsed = (self._unparsed + received)[-READ_BYTES - MOST_REPORT_BYTES :]
            if found := LEAVING_SECONDS.search(self._unparsed):
                self.leaving_seconds, self._unparsed = float(found[1]), b""
        return received

    def silent_seconds(self, timeout_seconds: float) -> float | None:
        """Return for how long it has given no heartbeat, if that is too long."""
        since, most = self.reported_at, timeout_seconds
        if self.ready_at is None:
            since, most = self.started_at, max(timeout_seconds, STARTUP_SECONDS)
        seconds = time.monotonic() - since
        return seconds if seconds > most else None

    def excuse(self, seconds: float) -> None:
        """Leave out a time in which the supervisor did not run: nor may this process have."""
        self.started_at += seconds
        self.reported_at += seconds

    def leave(self) -> None:
        """Have it take leave of its clients: a successor accepts connections on its sockets."""
        self.left_at = time.monotonic()
        with suppress(BrokenPipeError, ConnectionResetError):  # it has ended
            self.connection.send(REPLACED)

    def hurry(self) -> None:
        """Have it end within a second."""
        with suppress(OSError):  # it has ended
            self.connection.shutdown(socket.SHUT_WR)

    def end_hung(self) -> None:
        """Have it write where it hangs, and kill it; to be called until it has ended."""
        if self.hung_at is None:
            self.hung_at = time.monotonic()
            self.send(signal.SIGABRT)
        elif not self._is_killed and time.monotonic() - self.hung_at > DUMP_SECONDS:
            self._is_killed = True
            self.send(signal.SIGKILL)

    def send(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.process_id, number)

    def reap(self) -> str:
        """Wait for its end; return how it has ended."""
        _, status = os.waitpid(self.process_id, 0)
        self.connection.close()
        if self.hung_at is not None:
            return "hung, and was killed"
        return status_text(os.waitstatus_to_exitcode(status))


def status_text(status: int) -> str:
    if status < 0:
        return f"was killed by signal {-status}"
    return f"ended with status {status}"
