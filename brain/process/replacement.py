"""The replacement of all workers, one after the other, by what is installed now."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence

from brain.log_events import WORKER_NOT_REPLACED, WORKER_REPLACED, WORKERS_REPLACED
from brain.process.worker_process import WorkerProcess
from brain.process.worker_slot import WorkerSlot, log_process

logger = logging.getLogger(__name__)


class Replacement:
    """
    Replaces the workers: each gets a successor on its sockets, and drains once that is ready.

    The next one waits until it has ended, so that no more clients come back at a time than one
    worker closes, and until its successor is steady. If a successor ends before that, the
    replacement stops there.
    """

    def __init__(
        self, slots: Sequence[WorkerSlot], launch: Callable[[WorkerSlot], WorkerProcess]
    ) -> None:
        """`launch` starts a fresh process for a slot. It raises `OSError`."""
        self._slots = slots
        self._launch = launch
        self._left = deque(slots)
        self._slot: WorkerSlot | None = None
        """The one whose turn it is."""
        self._successor: WorkerProcess | None = None
        self._former: WorkerProcess | None = None
        """The one that drains."""
        self.is_over = False

    def begin_again(self) -> None:
        """Replace all workers once more, after the one whose turn it is."""
        self._left = deque(self._slots)

    def step(self) -> None:
        """Go on, as far as that is possible now."""
        if self._slot is None:
            self._begin_next()
        elif self._slot.successor is not None:
            if self._slot.successor.is_ready:
                self._change_over(self._slot)
        # The successor has its place: of one that has ended before, too.
        elif self._slot.process is not self._successor:
            self._stop("its successor was stopped")
        elif self._former is None and self._slot.is_steady:
            self._finish(self._slot)

    def note_end(self, process: WorkerProcess, reason: str) -> None:
        """Note that a worker process has ended, whatever one."""
        if process is self._former:
            self._former = None
        elif process is self._successor and not self.is_over:
            self._stop(f"its successor (process {process.process_id}) {reason}")

    def _begin_next(self) -> None:
        self._slot = self._left.popleft()
        try:
            self._successor = self._slot.successor = self._launch(self._slot)
        except OSError as error:
            self._stop(f"its successor cannot be started: {error.strerror}")

    def _change_over(self, slot: WorkerSlot) -> None:
        self._former = slot.promote()
        if self._former is not None:
            self._former.leave()
            text = "worker %d (process %s) is replaced, and drains"
            log_process(logger, WORKER_REPLACED, text, slot, self._former)

    def _finish(self, slot: WorkerSlot) -> None:
        """Note that one worker is replaced."""
        slot.note_replaced()
        self._slot = self._successor = None
        if not self._left:
            self.is_over = True
            WORKERS_REPLACED.log(logger, "all workers are replaced")

    def _stop(self, reason: str) -> None:
        assert self._slot is not None
        self.is_over = True
        WORKER_NOT_REPLACED.log(
            logger,
            "worker %d is not replaced: %s; the replacement stops, and the other workers go on as"
            " they are",
            self._slot.number,
            reason,
            worker=self._slot.number,
        )
