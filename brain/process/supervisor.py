"""
Several worker processes on one port, and the supervisor that restarts them.

uvicorn's own supervisor is not enough: when it is killed its workers live on and hold the port, a
worker that dies is restarted at once and for ever, SIGHUP restarts all, its exit status is always
0, and it does not report when all workers are ready. Workers are forked: they share the memory of
what has been imported, and the next one listens a moment after the last one has died.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NoReturn

from brain.database.backoff import delays
from brain.log_events import WORKER_CRASHED, WORKER_ENDED, WORKER_READY, WORKERS_FAILED

POLL_SECONDS = 0.1
# A worker that has served for so long did not fail at start-up.
STEADY_SECONDS = 5.0
# How often in a row every worker may fail before the supervisor gives up.
MOST_FAILURES = 4
# How long a worker may take to end, in addition to the time that its clients have.
SLACK_SECONDS = 5.0
# How long it may take when the supervisor is gone, or was signalled twice.
HURRY_SECONDS = 1.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Worker:
    """One worker process, as it sees itself."""

    number: int
    """From 1 on; a worker that replaces another has its number."""
    sockets: list[socket.socket]
    """Where it listens."""
    ready: Callable[[], None]
    """To be called once it accepts connections."""
    should_stop: Callable[[], bool]
    """To be called many times a second."""


@dataclass
class WorkerSlot:
    """One worker after the other, as the supervisor sees it."""

    number: int
    sockets: list[socket.socket]
    """They outlive a worker: a client that connects meanwhile is served by the next one."""
    process_id: int | None = None
    pipe: int = -1
    """Yields a byte when the worker is ready, and the end of file when it has ended."""
    ready_at: float | None = None
    failures: int = 0
    """How many workers have ended in a row, none of them steady."""
    start_at: float = 0.0
    pauses: Iterator[float] = field(default_factory=delays)

    @property
    def is_steady(self) -> bool:
        return self.ready_at is not None and time.monotonic() - self.ready_at >= STEADY_SECONDS


class Supervisor:
    """Starts workers, restarts them when they end, and stops them all."""

    def __init__(
        self,
        sockets: Sequence[list[socket.socket]],
        work: Callable[[Worker], int],
        *,
        on_ready: Callable[[], None],
        should_stop: Callable[[], bool],
        grace_seconds: float,
    ) -> None:
        """
        `work` is what a worker does, in a process of its own; it returns the exit status.

        There is one worker for each list of `sockets`. `on_ready` is called once, when all are
        ready. Clients have `grace_seconds` to close at the end.
        """
        self._slots = [WorkerSlot(number, own) for number, own in enumerate(sockets, start=1)]
        self._work = work
        self._on_ready: Callable[[], None] | None = on_ready
        self._should_stop = should_stop
        self._grace_seconds = grace_seconds
        self._signals = 0
        """How often this process was signalled to stop."""
        self._is_ending = False
        self._lifeline, self._end_of_lifeline = os.pipe()
        """Workers read the one end; the other is this process's alone, and is never written to."""

    def run(self) -> int:
        """
        Serve until a signal, or until `should_stop()`; return the exit status.

        From now on signals are only counted.
        """
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._note_signal)
        has_failed = False
        while not (self._signals or has_failed or self._should_stop()):
            for slot in self._slots:
                if slot.process_id is None and slot.start_at <= time.monotonic():
                    self._start(slot)
            self._look()
            if self._on_ready and all(slot.ready_at is not None for slot in self._slots):
                self._on_ready()
                self._on_ready = None
            has_failed = all(slot.failures >= MOST_FAILURES for slot in self._slots)
        if has_failed:
            text = "giving up: every worker ended %d times in a row"
            WORKERS_FAILED.log(logger, text, MOST_FAILURES)
        self._end()
        return 1 if has_failed else 0

    def _note_signal(self, *_: object) -> None:
        self._signals += 1

    def _start(self, slot: WorkerSlot) -> None:
        sys.stdout.flush()  # what is buffered would be printed by both
        pipe, ready = os.pipe()
        try:
            process_id = os.fork()
        except OSError as error:
            os.close(pipe)
            self._fail(slot, f"cannot be started: {error.strerror}")
        else:
            if process_id == 0:
                self._become_worker(slot, ready)
            slot.process_id, slot.pipe = process_id, pipe
        os.close(ready)

    def _become_worker(self, slot: WorkerSlot, ready: int) -> NoReturn:
        status = 1
        try:
            os.close(self._end_of_lifeline)
            for other in self._slots:
                for listener in other.sockets:
                    if listener not in slot.sockets:
                        listener.close()
            abandoned = threading.Event()
            threading.Thread(target=self._watch_lifeline, args=[abandoned], daemon=True).start()
            status = self._work(
                Worker(
                    slot.number,
                    slot.sockets,
                    ready=lambda: signal_ready(ready),
                    should_stop=lambda: self._signals > 0 or abandoned.is_set(),
                )
            )
        except SystemExit:
            pass  # uvicorn has logged why the application did not start
        except BaseException as error:
            number = slot.number
            WORKER_CRASHED.log(logger, "worker %d died", number, error=error, worker=number)
        finally:
            # Without cleaning up what the supervisor has open.
            os._exit(status)

    def _watch_lifeline(self, abandoned: threading.Event) -> None:
        """In a worker: end soon after the supervisor has died, whatever else is going on."""
        os.read(self._lifeline, 1)
        abandoned.set()
        time.sleep(HURRY_SECONDS)
        os._exit(1)

    def _look(self) -> None:
        """Wait a moment for workers to become ready or to end."""
        pipes = [slot.pipe for slot in self._slots if slot.process_id is not None]
        for pipe in select.select(pipes, [], [], POLL_SECONDS)[0]:
            (slot,) = (each for each in self._slots if each.pipe == pipe)
            if os.read(pipe, 1):
                slot.ready_at = time.monotonic()
                text, ids = "worker %d is process %s", (slot.number, slot.process_id)
                WORKER_READY.log(logger, text, *ids, worker=ids[0], worker_process=ids[1])
            else:
                self._reap(slot)
        for slot in self._slots:
            if slot.failures and slot.is_steady:
                slot.failures, slot.pauses = 0, delays()

    def _reap(self, slot: WorkerSlot) -> None:
        assert slot.process_id is not None
        process_id, status = os.waitpid(slot.process_id, 0)
        os.close(slot.pipe)
        slot.process_id, slot.pipe, slot.ready_at = None, -1, None
        if not (self._signals or self._is_ending):
            reason = status_text(os.waitstatus_to_exitcode(status))
            self._fail(slot, f"(process {process_id}) {reason}")

    def _fail(self, slot: WorkerSlot, reason: str) -> None:
        slot.failures += 1
        pause = next(slot.pauses)
        slot.start_at = time.monotonic() + pause
        number, seconds, text = slot.number, round(pause, 1), "worker %d %s; next try in %.1f s"
        WORKER_ENDED.log(logger, text, number, reason, pause, worker=number, pause_seconds=seconds)

    def _end(self) -> None:
        """Stop all workers: gracefully, at once after another signal, or by force."""
        self._is_ending = True
        for slot in self._slots:
            for listener in slot.sockets:
                listener.close()
        signals = self._signals
        self._send(signal.SIGTERM)
        self._wait(self._grace_seconds + SLACK_SECONDS, lambda: self._signals > signals)
        os.close(self._end_of_lifeline)
        self._wait(2 * HURRY_SECONDS)
        self._send(signal.SIGKILL)
        self._wait(SLACK_SECONDS)

    def _send(self, number: signal.Signals) -> None:
        for slot in self._slots:
            if slot.process_id is not None:
                os.kill(slot.process_id, number)

    def _wait(self, seconds: float, is_done: Callable[[], bool] = lambda: False) -> None:
        deadline = time.monotonic() + seconds
        while any(slot.process_id is not None for slot in self._slots):
            if is_done() or time.monotonic() > deadline:
                return
            self._look()


def signal_ready(pipe: int) -> None:
    with suppress(BrokenPipeError):  # the supervisor has died, which the lifeline reports
        os.write(pipe, b".")


def status_text(status: int) -> str:
    if status < 0:
        return f"was killed by signal {-status}"
    return f"ended with status {status}"
