"""
Several worker processes on one port, and the supervisor that restarts and replaces them.

uvicorn's own supervisor is not enough: when it is killed its workers live on and hold the port, a
worker that dies is restarted at once and for ever, SIGHUP restarts all, its exit status is always
0, and it does not report when all workers are ready.
"""

from __future__ import annotations

import logging
import select
import signal
import socket
import time
from collections.abc import Callable, Sequence
from itertools import chain, count
from typing import Literal

from brain.log_events import (
    WORKER_DRAINED,
    WORKER_ENDED,
    WORKER_KILLED,
    WORKER_READY,
    WORKER_STOPPED,
    WORKERS_FAILED,
    WORKERS_REPLACING,
)
from brain.metrics.workers import WorkerStatistics
from brain.process.heartbeat import Heartbeat
from brain.process.launcher import Launcher, Program
from brain.process.replacement import Replacement
from brain.process.watchdog import Watchdog
from brain.process.worker import HURRY_SECONDS, Worker
from brain.process.worker_process import WorkerProcess, status_text
from brain.process.worker_slot import WorkerSlot, log_process

POLL_SECONDS = 0.1
# How often in a row every worker may fail before the supervisor gives up.
MOST_FAILURES = 4
# How long a worker may take to end, in addition to the time that its clients have.
SLACK_SECONDS = 5.0

RestartReason = Literal["died", "hung", "replaced"]

logger = logging.getLogger(__name__)


class Supervisor:
    """Starts workers, restarts those that end or hang, replaces them, and stops them all."""

    def __init__(
        self,
        sockets: Sequence[list[socket.socket]],
        work: Callable[[Worker], int],
        *,
        on_ready: Callable[[], None],
        should_stop: Callable[[], bool],
        grace_seconds: float,
        timeout_seconds: float = 30.0,
        on_stopping: Callable[[float], None] = lambda seconds: None,
        on_reap: Callable[[int], object] = lambda process_number: None,
        on_change: Callable[[WorkerStatistics], object] = lambda statistics: None,
        heartbeat: Heartbeat | None = None,
        program: Program | None = None,
        shared: Sequence[socket.socket] = (),
        should_forward_hang_up: Callable[[], bool] = lambda: False,
    ) -> None:
        """
        `work` is what a worker does, in a process of its own; it returns the exit status.

        There is one worker for each list of `sockets`. `on_ready` is called once, when all are
        ready, `on_stopping` when they are to stop, with the seconds that this may take, `on_reap`
        with the process number of a worker that has ended, and `on_change` with other statistics. A
        worker has `grace_seconds` to take leave of its clients, unless it reports that it has
        others. One that gives no heartbeat for `timeout_seconds` is killed.
        `heartbeat` is this process's own. `program` is what workers run that replace others; unless
        given, they are forked too. All workers have the `shared` sockets. They get a SIGHUP
        whenever `should_forward_hang_up()`.
        """
        self._slots = [WorkerSlot(number, own) for number, own in enumerate(sockets, start=1)]
        self._shared = shared
        self._launcher = Launcher(work, program, timeout_seconds, shared)
        self._on_ready: Callable[[], None] | None = on_ready
        self._should_stop = should_stop
        self._grace_seconds = grace_seconds
        self._watchdog = Watchdog(timeout_seconds, self._end_seconds)
        self._on_stopping = on_stopping
        self._on_reap = on_reap
        self._on_change = on_change
        self._heartbeat = heartbeat
        self._should_forward_hang_up = should_forward_hang_up
        self._processes: dict[socket.socket, tuple[WorkerSlot, WorkerProcess]] = {}
        """All that live, by their connections."""
        self._replacement: Replacement | None = None
        self._restarts: dict[RestartReason, int] = {"died": 0, "hung": 0, "replaced": 0}
        self._statistics: WorkerStatistics | None = None
        self._signals = 0
        """How often this process was signalled to stop."""
        self._should_replace = False
        """This process was signalled to replace the workers."""
        self._is_ending = False
        self._beaten_at = time.monotonic()

    @property
    def _is_stopping(self) -> bool:
        return self._signals > 0 or self._is_ending

    def statistics(self) -> WorkerStatistics:
        up = sum(process.is_ready for _, process in self._processes.values())
        return WorkerStatistics(len(self._slots), up, **self._restarts)

    def run(self) -> int:
        """
        Serve until a signal, or until `should_stop()`; return the exit status.

        From now on signals are only counted.
        """
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._note_signal)
        signal.signal(signal.SIGUSR2, self._note_replacement)
        has_failed = is_over = False
        while not (self._signals or has_failed or is_over):
            for slot in self._slots:
                if slot.is_empty and slot.start_at <= time.monotonic():
                    self._start(slot)
            if self._should_forward_hang_up():
                self._send(signal.SIGHUP)
            self._replace()
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

    def _note_replacement(self, *_: object) -> None:
        self._should_replace = True

    def _start(self, slot: WorkerSlot) -> None:
        try:
            slot.process = self._launch(slot, is_fresh=slot.is_fresh)
        except OSError as error:
            self._fail(slot, f"cannot be started: {error.strerror}")

    def _launch(self, slot: WorkerSlot, *, is_fresh: bool = True) -> WorkerProcess:
        """Start a process for a slot. Raises `OSError`."""
        taken = {process.number for _, process in self._processes.values()}
        number = next(number for number in count(1) if number not in taken)
        others = chain.from_iterable(one.sockets for one in self._slots)
        unneeded = [one for one in others if one not in slot.sockets]
        process = self._launcher.launch(
            slot, number, [*self._processes, *unneeded], is_fresh=is_fresh
        )
        self._processes[process.connection] = slot, process
        return process

    def _replace(self) -> None:
        """Begin to replace the workers, if that was signalled, or go on with it."""
        if self._should_replace:
            self._should_replace = False
            WORKERS_REPLACING.log(logger, "replacing the workers, one after the other")
            if self._replacement is None or self._replacement.is_over:
                self._replacement = Replacement(self._slots, self._launch)
            else:
                self._replacement.begin_again()
        if self._replacement is not None:
            if self._replacement.is_over:
                self._replacement = None
            else:
                self._replacement.step()

    def _look(self) -> None:
        """Wait a moment for workers to report or to end, and see to those that hang."""
        for connection in select.select(list(self._processes), [], [], POLL_SECONDS)[0]:
            self._receive(*self._processes[connection])
        self._watchdog.look(self._processes.values())
        for slot in self._slots:
            if slot.failures and slot.is_steady:
                slot.note_steady()
            if slot.process and slot.process.left_at is not None and not self._is_stopping:
                self._supersede(slot, slot.process)
        if (statistics := self.statistics()) != self._statistics:
            self._statistics = statistics
            self._on_change(statistics)
        self._beat()

    def _beat(self) -> None:
        now = time.monotonic()
        if self._heartbeat is not None and now - self._beaten_at >= self._heartbeat.seconds:
            self._beaten_at = now
            self._heartbeat.give()

    def _receive(self, slot: WorkerSlot, process: WorkerProcess) -> None:
        was_ready = process.is_ready
        if not process.receive():
            self._reap(slot, process)
        elif process.is_ready and not was_ready:
            log_process(logger, WORKER_READY, "worker %d is process %s", slot, process)

    def _supersede(self, slot: WorkerSlot, process: WorkerProcess) -> None:
        """Have another worker accept connections: this one was signalled to stop, and drains."""
        log_process(logger, WORKER_STOPPED, "worker %d (process %s) was stopped", slot, process)
        slot.process, slot.start_at = None, 0.0
        if slot.successor is not None:
            slot.promote()

    def _reap(self, slot: WorkerSlot, process: WorkerProcess) -> None:
        reason = process.reap()
        del self._processes[process.connection]
        self._on_reap(process.number)
        if self._is_stopping:
            return
        if process is slot.process:
            slot.process = None
            self._restarts["died" if process.hung_at is None else "hung"] += 1
            self._fail(slot, f"(process {process.process_id}) {reason}")
            if slot.successor is not None:
                slot.promote()
        elif process is slot.successor:
            slot.successor = None
        else:
            self._restarts["replaced"] += 1
            self._note_drained(slot, process, reason)
        if self._replacement is not None:
            self._replacement.note_end(process, reason)

    def _note_drained(self, slot: WorkerSlot, process: WorkerProcess, reason: str) -> None:
        if reason == status_text(0):
            text = "worker %d (process %s) has drained"
            log_process(logger, WORKER_DRAINED, text, slot, process)
        else:
            text = "worker %d (process %s) %s before it had drained"
            log_process(logger, WORKER_KILLED, text, slot, process, reason)

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
        living = [process for _, process in self._processes.values()]
        end_seconds = max(map(self._end_seconds, living), default=SLACK_SECONDS)
        self._on_stopping(end_seconds)
        for listener in (*chain.from_iterable(slot.sockets for slot in self._slots), *self._shared):
            listener.close()
        signals = self._signals
        self._send(signal.SIGTERM)
        if not hurries:
            self._wait(end_seconds, lambda: self._signals > signals)
        for _, process in self._processes.values():
            process.hurry()
        self._wait(2 * HURRY_SECONDS)
        self._send(signal.SIGKILL)
        self._wait(SLACK_SECONDS)

    def _end_seconds(self, process: WorkerProcess) -> float:
        """Return how long a process may take to end that takes leave of its clients."""
        reported = process.leaving_seconds
        return (self._grace_seconds if reported is None else reported) + SLACK_SECONDS

    def _send(self, number: signal.Signals) -> None:
        for _, process in self._processes.values():
            process.send(number)

    def _wait(self, seconds: float, is_done: Callable[[], bool] = lambda: False) -> None:
        deadline = time.monotonic() + seconds
        while self._processes:
            if is_done() or time.monotonic() > deadline:
                return
            self._look()
