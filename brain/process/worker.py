"""One worker process, as it sees itself."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections.abc import MutableMapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

from brain.process.heartbeat import Heartbeat

READY, ALIVE, LEAVING = b"r", b".", b"x"
"""What a worker writes to its supervisor. After `READY` come seconds and a semicolon."""
REPLACED = b"l"
"""What a supervisor writes to a worker that has a successor; in a hurry it hangs up."""
# How long a worker may take to end when the supervisor is gone, or was signalled twice.
HURRY_SECONDS = 1.0
# Several are due before a worker counts as one that hangs.
HEARTBEATS_PER_TIMEOUT = 5
LONGEST_INTERVAL_SECONDS = 1.0
# Those that a worker handles, or ignores, for itself; until it does they are blocked.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
VARIABLE = "_BRAIN_WORKER"
"""The environment variable in which a worker that was not forked finds its assignment."""


@dataclass(frozen=True)
class Assignment:
    """What a supervisor gives to a worker process."""

    number: int
    """That of its slot, from 1 on; a worker that replaces another has its number."""
    process_number: int
    """The lowest number from 1 on that no other living worker has."""
    timeout_seconds: float
    """How long the supervisor waits for a heartbeat."""
    sockets: Sequence[socket.socket]
    """Where it listens for clients."""
    shared: Sequence[socket.socket]
    """Further sockets, which all workers have."""
    supervisor: socket.socket
    """The connection to the supervisor."""

    def dumps(self) -> str:
        """Return it as text, for a program that inherits the sockets by their numbers."""
        return json.dumps(
            {
                "number": self.number,
                "process_number": self.process_number,
                "timeout_seconds": self.timeout_seconds,
                "sockets": [one.fileno() for one in self.sockets],
                "shared": [one.fileno() for one in self.shared],
                "supervisor": self.supervisor.fileno(),
            }
        )

    @classmethod
    def loads(cls, text: str) -> Self:
        values = json.loads(text)
        return cls(
            values["number"],
            values["process_number"],
            values["timeout_seconds"],
            [inherited_socket(number) for number in values["sockets"]],
            [inherited_socket(number) for number in values["shared"]],
            inherited_socket(values["supervisor"]),
        )


def inherited_socket(number: int) -> socket.socket:
    """Return a socket that was open when this program began; programs that it starts lack it."""
    os.set_inheritable(number, False)
    return socket.socket(fileno=number)


class Worker:
    """This process, as one worker of several, and its connection to the supervisor."""

    def __init__(self, assignment: Assignment) -> None:
        """From now on signals to stop are only counted, and others of the supervisor's ignored."""
        self.number = assignment.number
        self.process_number = assignment.process_number
        self.sockets = list(assignment.sockets)
        self.shared = list(assignment.shared)
        self._supervisor = assignment.supervisor
        self._signals = 0
        self._hang_ups = 0
        self._is_abandoned = threading.Event()
        self._is_replaced = threading.Event()
        seconds = assignment.timeout_seconds / HEARTBEATS_PER_TIMEOUT
        self.heartbeat = Heartbeat(
            min(seconds, LONGEST_INTERVAL_SECONDS), lambda: self._report(ALIVE)
        )
        """What the supervisor waits for."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._note_signal)
        signal.signal(signal.SIGHUP, self._note_hang_up)
        # A service manager signals all processes at once: this one is for the supervisor.
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        threading.Thread(target=self._listen, name="supervisor", daemon=True).start()

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str]) -> Self | None:
        """Return the worker that this process was started as, if it was; to be called once."""
        text = environment.pop(VARIABLE, None)
        return None if text is None else cls(Assignment.loads(text))

    def ready(self, leaving_seconds: float | None = None) -> None:
        """
        Report that it accepts connections, and how long it may take leave of its clients.

        It may have begun with other settings than the supervisor, which expects its own unless a
        worker reports another time.
        """
        self._report(READY if leaving_seconds is None else READY + b"%.1f;" % leaving_seconds)

    def leaving(self) -> None:
        """Report that it accepts no connections any more, and has clients to take leave of."""
        self._report(LEAVING)

    def should_stop(self) -> bool:
        """Return True if it is to take leave of its clients; to be called many times a second."""
        return self._signals > 0 or self.is_replaced() or self._is_abandoned.is_set()

    def take_hang_up(self) -> bool:
        """Return True if the supervisor has forwarded a SIGHUP; likewise."""
        taken, self._hang_ups = self._hang_ups, 0
        return taken > 0

    def should_hurry(self) -> bool:
        """Return True if there is no time for that; likewise."""
        return self._is_abandoned.is_set()

    def is_replaced(self) -> bool:
        """Return True if another worker accepts connections on its sockets."""
        return self._is_replaced.is_set()

    def _note_signal(self, *_: object) -> None:
        self._signals += 1

    def _note_hang_up(self, *_: object) -> None:
        self._hang_ups += 1

    def _report(self, what: bytes) -> None:
        # The supervisor has died, which `_listen` notices; or is suspended, and reads later.
        with suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
            self._supervisor.send(what, socket.MSG_DONTWAIT)

    def _listen(self) -> None:
        """Read from the supervisor, and end soon after it has died, whatever else is going on."""
        with suppress(ConnectionResetError):
            while self._supervisor.recv(1) == REPLACED:
                self._is_replaced.set()
        self._is_abandoned.set()
        time.sleep(HURRY_SECONDS)
        os._exit(1)
