"""
Starts worker processes.

Workers are forked: they share the memory of what has been imported, and the next one listens a
moment after the last one has died. Those that replace others run a program of their own instead:
what is installed, and set, by then.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NoReturn

from brain.log_events import WORKER_CRASHED
from brain.process.worker import SIGNALS, VARIABLE, Assignment, Worker
from brain.process.worker_process import WorkerProcess
from brain.process.worker_slot import WorkerSlot

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Program:
    """What a worker runs that is not forked; it finds its assignment in the environment."""

    arguments: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    """Besides that of this process."""


@dataclass(frozen=True)
class Launcher:
    """Starts the workers of a supervisor."""

    work: Callable[[Worker], int]
    """What a forked worker does; it returns the exit status."""
    program: Program | None
    """Without one, all are forked."""
    timeout_seconds: float
    """See `Assignment`, as for `shared`."""
    shared: Sequence[socket.socket]

    def launch(
        self,
        slot: WorkerSlot,
        process_number: int,
        unneeded: Iterable[socket.socket],
        *,
        is_fresh: bool,
    ) -> WorkerProcess:
        """
        Start a worker on the sockets of a slot; it closes those that are `unneeded`.

        Raises `OSError`.
        """
        sys.stdout.flush()  # what is buffered would be printed by both
        is_fresh = is_fresh and self.program is not None
        ours, its = socket.socketpair()
        assignment = Assignment(
            slot.number, process_number, self.timeout_seconds, slot.sockets, self.shared, its
        )
        with its:
            try:
                with blocked(SIGNALS):
                    process_id = os.fork()
                    if process_id == 0:
                        self._begin(assignment, [ours, *unneeded], is_fresh=is_fresh)
            except OSError:
                ours.close()
                raise
        return WorkerProcess(process_number, process_id, ours, is_fresh)

    def _begin(
        self, assignment: Assignment, unneeded: Iterable[socket.socket], *, is_fresh: bool
    ) -> NoReturn:
        """In the new process: become a worker."""
        status = 1
        try:
            if is_fresh:
                self._become_program(assignment)
            for one in unneeded:
                one.close()
            status = self.work(Worker(assignment))
        except SystemExit:
            pass  # uvicorn has logged why the application did not start
        except BaseException as error:
            number = assignment.number
            WORKER_CRASHED.log(logger, "worker %d died", number, error=error, worker=number)
        finally:
            # Without cleaning up what the supervisor has open.
            os._exit(status)

    def _become_program(self, assignment: Assignment) -> NoReturn:
        """Run the program, with the signals blocked until it handles them."""
        assert self.program is not None
        for one in (*assignment.sockets, *assignment.shared, assignment.supervisor):
            one.set_inheritable(True)
        environment = {**os.environ, **self.program.environment, VARIABLE: assignment.dumps()}
        os.execve(self.program.arguments[0], list(self.program.arguments), environment)


@contextmanager
def blocked(signals: Iterable[signal.Signals]) -> Iterator[None]:
    """Let these signals wait."""
    former = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)
