"""One worker process, as it sees itself."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from brain.process.heartbeat import Heartbeat

READY, ALIVE = b"r", b"."
"""What a worker writes to its supervisor."""
# How long it may take to end when the supervisor is gone, or was signalled twice.
HURRY_SECONDS = 1.0
# Several are due before a worker counts as one that hangs.
HEARTBEATS_PER_TIMEOUT = 5
LONGEST_INTERVAL_SECONDS = 1.0


@dataclass(frozen=True)
class Worker:
    """One worker process."""

    number: int
    """That of its slot, from 1 on; a worker that replaces another has its number."""
    process_number: int
    """The lowest number from 1 on that no other living worker has."""
    sockets: list[socket.socket]
    """Where it listens."""
    pipe: int
    """To the supervisor."""
    timeout_seconds: float
    """How long the supervisor waits for a heartbeat."""
    should_stop: Callable[[], bool]
    """To be called many times a second."""
    should_hurry: Callable[[], bool]
    """True if there is no time to drain; likewise."""

    def ready(self) -> None:
        """Report that it accepts connections."""
        self._report(READY)

    @property
    def heartbeat(self) -> Heartbeat:
        """What the supervisor waits for."""
        seconds = self.timeout_seconds / HEARTBEATS_PER_TIMEOUT
        return Heartbeat(min(seconds, LONGEST_INTERVAL_SECONDS), lambda: self._report(ALIVE))

    def _report(self, what: bytes) -> None:
        # The supervisor has died, which the lifeline reports; or is suspended, and reads later.
        with suppress(BrokenPipeError, BlockingIOError):
            os.write(self.pipe, what)


def watch_lifeline(lifeline: int, abandoned: threading.Event) -> None:
    """End soon after the supervisor has died, whatever else is going on; runs in a thread."""
    os.read(lifeline, 1)
    abandoned.set()
    time.sleep(HURRY_SECONDS)
    os._exit(1)
