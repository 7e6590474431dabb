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
from dataclasses import dataclass, field
from itertools import count
from typing import Literal, NamedTuple, NoReturn

from brain.database.backoff import delays
from brain.log_events import (
    WORKER_CRASHED,
    WORKER_ENDED,
    WORKER_HUNG,
    WORKER_READY,
    WORKERS_FAILED,
)
from brain.process.heartbeat import Heartbeat
from brain.process.worker import HURRY_SECONDS, Worker, watch_lifeline
from brain.process.worker_process import WorkerProcess

POLL_SECONDS = 0.1
# How often in a row every worker may fail before the supervisor gives up.
MOST_FAILURES = 4
# How long a worker may take to end, in addition to the time that its clients have.
SLACK_SECONDS = 5.0
# A supervisor that has not looked for so long did not run.
ABSENCE_SECONDS = 1.0

RestartReason = Literal["died", "hung", "replaced"]

logger = logging.getLogger(__name__)


class WorkerStatistics(NamedTuple):
    """What a supervisor knows of its workers."""

    wanted: int
    up: int
    """How many are ready, those that are being replaced included."""
    died: int
    """How many have ended by themselves, and were restarted."""
    hung: int
    """How many were killed because they gave no heartbeat, and were restarted."""
    replaced: int


@dataclass
class WorkerSlot:
    """One worker after the other."""

    number: int
    sockets: list[socket.socket]
    """They outlive a worker: a client that connects meanwhile is served by the next one."""
    process: WorkerProcess | None = None
    failures: int = 0
    """How many workers have ended in a row, none of them steady."""
    start_at: float = 0.0
    pauses: Iterator[float] = field(default_factory=delays)

    @property
    def is_ready(self) -> bool:
        return self.process is not None and self.process.ready_at is not None


class Supervisor:
    """Starts workers, restarts them when they end or hang, and stops them all."""

    def __init__(
        self,
        sockets: Sequence[list[socket.socket]],
        work: Callable[[Worker], int],
        *,
        on_ready: Callable[[], None],
        should_stop: Callable[[], bool],
        grace_seconds: float,
        timeout_seconds: float = 30.0,
        on_stopping: Callable[[], None] = lambda: None,
        on_reap: Callable[[int], object] = lambda process_number: None,
        on_change: Callable[[WorkerStatistics], object] = lambda statistics: None,
        heartbeat: Heartbeat | None = None,
    ) -> None:
        """
        `work` is what a worker does, in a process of its own; it returns the exit status.

        There is one worker for each list of `sockets`. `on_ready` is called once, when all are
        ready, `on_stopping` when they are to stop, `on_reap` with the process number of a worker
        that has ended, and `on_change` with other statistics. A worker has `grace_seconds` to take
        leave of its clients. One that gives no heartbeat for `timeout_seconds` is killed.
        `heartbeat` is this process's own.
        """
        self._slots = [WorkerSlot(number, own) for number, own in enumerate(sockets, start=1)]
        self._work = work
        self._on_ready: Callable[[], None] | None = on_ready
        self._should_stop = should_stop
        self._grace_seconds = grace_seconds
        self._timeout_seconds = timeout_seconds
        self._on_stopping = on_stopping
        self._on_reap = on_reap
        self._on_change = on_change
        self._heartbeat = heartbeat
        self._processes: dict[int, tuple[WorkerSlot, WorkerProcess]] = {}
        """All that live, by their pipes."""
        self._restarts: dict[RestartReason, int] = {"died": 0, "hung": 0, "replaced": 0}
        self._statistics: WorkerStatistics | None = None
        self._signals = 0
        """How often this process was signalled to stop."""
        self._is_ending = False
        self._looked_at = self._beaten_at = time.monotonic()
        self._lifeline, self._end_of_lifeline = os.pipe()
        """Workers read the one end; the other is this process's alone, and is never written to."""

    def statistics(self) -> WorkerStatistics:
        up = sum(process.ready_at is not None for _, process in self._processes.values())
        return WorkerStatistics(len(self._slots), up, **self._restarts)

    def run(self) -> int:
        """
        Serve until a signal, or until `should_stop()`; return the exit status.

        From now on signals are only counted.
        """
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._note_signal)
        has_failed = is_over = False
        while not (self._signals or has_failed or is_over):
            for slot in self._slots:
                if slot.process is None and slot.start_at <= time.monotonic():
                    self._start(slot)
            self._look()
            if self._on_ready and all(slot.is_ready for slot in self._slots):
                self._on_ready()
                self._on_ready = None
            has_failed = all(slot.failures >= MOST_FAILURES for slot in self._slots)
            is_over = self._should_stop()
        if has_failed:
            text = "giving up: every worker ended %d times in a row"
            WORKERS_FAILED.log(logger, text, MOST_FAILURES)
        self._end(hurries=is_over)
        return 1 if has_failed else 0

    def _note_signal(self, *_: object) -> None:
        self._signals += 1

    def _start(self, slot: WorkerSlot) -> None:
        sys.stdout.flush()  # what is buffered would be printed by both
        taken = {process.number for _, process in self._processes.values()}
        process_number = next(number for number in count(1) if number not in taken)
        pipe, report = os.pipe()
        try:
            process_id = os.fork()
        except OSError as error:
            os.close(pipe)
            self._fail(slot, f"cannot be started: {error.strerror}")
        else:
            if process_id == 0:
                self._become_worker(slot, process_number, report)
            slot.process = WorkerProcess(process_number, process_id, pipe)
            self._processes[pipe] = slot, slot.process
        os.close(report)

    def _become_worker(self, slot: WorkerSlot, process_number: int, report: int) -> NoReturn:
        status = 1
        try:
            os.close(self._end_of_lifeline)
            for pipe in self._processes:
                os.close(pipe)
            for other in self._slots:
                for listener in other.sockets:
                    if listener not in slot.sockets:
                        listener.close()
            os.set_blocking(report, False)
            abandoned = threading.Event()
            threading.Thread(
                target=watch_lifeline, args=[self._lifeline, abandoned], daemon=True
            ).start()
            status = self._work(
                Worker(
                    slot.number,
                    process_number,
                    slot.sockets,
                    report,
                    self._timeout_seconds,
                    should_stop=lambda: self._signals > 0 or abandoned.is_set(),
                    should_hurry=abandoned.is_set,
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

    def _look(self) -> None:
        """Wait a moment for workers to report or to end, and see to those that hang."""
        for pipe in select.select(list(self._processes), [], [], POLL_SECONDS)[0]:
            slot, process = self._processes[pipe]
            was_ready = process.ready_at is not None
            if not process.receive():
                self._reap(slot, process)
            elif process.ready_at is not None and not was_ready:
                text, ids = "worker %d is process %s", (slot.number, process.process_id)
                WORKER_READY.log(logger, text, *ids, worker=ids[0], worker_process=ids[1])
        self._note_absence()
        for slot, process in self._processes.values():
            self._end_if_hung(slot, process)
        for slot in self._slots:
            if slot.failures and slot.process is not None and slot.process.is_steady:
                slot.failures, slot.pauses = 0, delays()
        if (statistics := self.statistics()) != self._statistics:
            self._statistics = statistics
            self._on_change(statistics)
        self._beat()

    def _note_absence(self) -> None:
        """Excuse workers for a time in which this process was suspended, and so may they."""
        now = time.monotonic()
        seconds, self._looked_at = now - self._looked_at, now
        if seconds > ABSENCE_SECONDS:
            for _, process in self._processes.values():
                process.excuse(seconds)

    def _beat(self) -> None:
        heartbeat = self._heartbeat
        if heartbeat is not None and self._looked_at - self._beaten_at >= heartbeat.seconds:
            self._beaten_at = self._looked_at
            heartbeat.give()

    def _end_if_hung(self, slot: WorkerSlot, process: WorkerProcess) -> None:
        if process.hung_at is None:
            seconds = process.silent_seconds(self._timeout_seconds)
            if seconds is None:
                return
            WORKER_HUNG.log(
                logger,
                "worker %d (process %s) %s for %.0f s, and is killed; its stacks follow"
                " (BRAIN_WORKER_TIMEOUT_SECONDS)",
                slot.number,
                process.process_id,
                "gave no heartbeat" if process.ready_at is not None else "was not ready",
                seconds,
                worker=slot.number,
                worker_process=process.process_id,
            )
        process.end_hung()

    def _reap(self, slot: WorkerSlot, process: WorkerProcess) -> None:
        reason = process.reap()
        del self._processes[process.pipe]
        slot.process = None
        self._on_reap(process.number)
        if not (self._signals or self._is_ending):
            self._restarts["died" if process.hung_at is None else "hung"] += 1
            self._fail(slot, f"(process {process.process_id}) {reason}")

    def _fail(self, slot: WorkerSlot, reason: str) -> None:
        slot.failures += 1
        pause = next(slot.pauses)
        slot.start_at = time.monotonic() + pause
        number, seconds, text = slot.number, round(pause, 1), "worker %d %s; next try in %.1f s"
        WORKER_ENDED.log(logger, text, number, reason, pause, worker=number, pause_seconds=seconds)

    def _end(self, *, hurries: bool) -> None:
        """
        Stop all workers: gracefully, at once after another signal or if it `hurries`, or by force.
        """
        self._is_ending = True
        self._on_stopping()
        for slot in self._slots:
            for listener in slot.sockets:
                listener.close()
        signals = self._signals
        self._send(signal.SIGTERM)
        if not hurries:
            self._wait(self._grace_seconds + SLACK_SECONDS, lambda: self._signals > signals)
        os.close(self._end_of_lifeline)
        self._wait(2 * HURRY_SECONDS)
        self._send(signal.SIGKILL)
        self._wait(SLACK_SECONDS)

    def _send(self, number: signal.Signals) -> None:
        for _, process in self._processes.values():
            process.send(number)

    def _wait(self, seconds: float, is_done: Callable[[], bool] = lambda: False) -> None:
        deadline = time.monotonic() + seconds
        while self._processes:
            if is_done() or time.monotonic() > deadline:
                return
            self._look()
