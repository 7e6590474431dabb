"""Ends worker processes that hang, or that do not end in time."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Collection

from brain.log_events import WORKER_HUNG
from brain.process.worker_process import WorkerProcess
from brain.process.worker_slot import WorkerSlot

# A supervisor that has not looked for so long did not run.
ABSENCE_SECONDS = 1.0

logger = logging.getLogger(__name__)


class Watchdog:
    """Knows how long a worker process may give no heartbeat, and how long it may drain."""

    def __init__(
        self, timeout_seconds: float, end_seconds: Callable[[WorkerProcess], float]
    ) -> None:
        """`end_seconds` returns how long a process may take to end that drains."""
        self._timeout_seconds = timeout_seconds
        self._end_seconds = end_seconds
        self._looked_at = time.monotonic()

    def look(self, processes: Collection[tuple[WorkerSlot, WorkerProcess]]) -> None:
        """End those for which it is time; to be called all the time, after their reports."""
        now = time.monotonic()
        absent_seconds, self._looked_at = now - self._looked_at, now
        for slot, process in processes:
            if absent_seconds > ABSENCE_SECONDS:
                # This process was suspended, and so may the workers have been.
                process.excuse(absent_seconds)
            self._end_if_hung(slot, process)
            if process.left_at is not None and now - process.left_at > self._end_seconds(process):
                process.send(signal.SIGKILL)

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
                "gave no heartbeat" if process.is_ready else "was not ready",
                seconds,
                worker=slot.number,
                worker_process=process.process_id,
            )
        process.end_hung()
