"""One worker after the other on the same sockets."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field

from brain.database.backoff import delays
from brain.log_events import LogEvent
from brain.process.worker_process import WorkerProcess


@dataclass
class WorkerSlot:
    """The place of one worker of several."""

    number: int
    sockets: list[socket.socket]
    """They outlive a worker: a client that connects meanwhile is served by the next one."""
    process: WorkerProcess | None = None
    """The one that serves, or is to."""
    successor: WorkerProcess | None = None
    """One that is to take its place as soon as it is ready."""
    is_fresh: bool = False
    """True if workers run what is installed when they begin; see `WorkerProcess`."""
    failures: int = 0
    """How many workers have ended in a row, none of them steady."""
    start_at: float = 0.0
    pauses: Iterator[float] = field(default_factory=delays)

    @property
    def is_ready(self) -> bool:
        return self.process is not None and self.process.is_ready

    @property
    def is_steady(self) -> bool:
        return self.process is not None and self.process.is_steady

    @property
    def is_empty(self) -> bool:
        return self.process is None and self.successor is None

    def promote(self) -> WorkerProcess | None:
        """Let the successor take the place; return the process that had it, if that lives."""
        assert self.successor is not None
        former, self.process, self.successor = self.process, self.successor, None
        return former

    def note_replaced(self) -> None:
        """Start workers as this one from now on."""
        assert self.process is not None
        self.is_fresh = self.process.is_fresh

    def note_steady(self) -> None:
        self.failures, self.pauses = 0, delays()


def log_process(
    logger: logging.Logger,
    event: LogEvent,
    text: str,
    slot: WorkerSlot,
    process: WorkerProcess,
    *values: object,
) -> None:
    """Log what has become of one process of a slot: the text begins with the ids of both."""
    ids = (slot.number, process.process_id)
    event.log(logger, text, *ids, *values, worker=ids[0], worker_process=ids[1])
