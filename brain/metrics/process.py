"""Metrics of a process: memory, open files, its event loop, its garbage collections."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import platform
import resource
import time
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge

import brain
from brain.metrics.followed import Followed, FollowedHistogram

LAG_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
PAUSE_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
LOOP_SECONDS = 0.1
STATM = Path("/proc/self/statm")
OPEN_FILES = Path("/proc/self/fd")
# Counting them one by one takes a while if there are many.
BETWEEN_COUNTS_SECONDS = 10.0


class ProcessMetrics:
    """Shows the process that it is made in."""

    def __init__(self, registry: CollectorRegistry, process_number: int) -> None:
        self._registry = registry
        self._number = str(process_number)
        self._memory = self._gauge("brain_memory_bytes", "Resident memory of a process.")
        self._open_files = self._gauge(
            "brain_open_files", "Open files of a process, of which each client is one."
        )
        self._open_files_limit = self._gauge(
            "brain_open_files_limit", "How many it may have open: ulimit -n."
        )
        self._started = self._gauge(
            "brain_start_time_seconds", "When a process started, in seconds since 1970."
        )
        self._heartbeat = self._gauge(
            "brain_heartbeat_timestamp_seconds",
            "When the event loop of a process has run last, in seconds since 1970.",
        )
        self._processor = Followed(
            Counter(
                "brain_processor_seconds_total",
                "Processor time of a process.",
                ["process"],
                registry=registry,
            )
        )
        self._lag = FollowedHistogram(
            registry,
            "brain_event_loop_lag_seconds",
            "How late the event loop was, ten times a second.",
            LAG_BUCKETS,
        )
        self._pauses = FollowedHistogram(
            registry,
            "brain_gc_pause_seconds",
            "How long a garbage collection has stopped the process.",
            PAUSE_BUCKETS,
        )
        self._collecting_since = 0.0
        self._counted_at = float("-inf")
        build = Gauge(
            "brain_build_info",
            "1, with the version of Brain and that of Python.",
            ["version", "python"],
            registry=registry,
            multiprocess_mode="livemax",
        )
        build.labels(brain.__version__, platform.python_version()).set(1)
        self._started.labels(self._number).set(time.time())

    def sample(self) -> None:
        self._heartbeat.labels(self._number).set(time.time())
        self._processor.follow(time.process_time(), self._number)
        if (memory := resident_bytes()) is not None:
            self._memory.labels(self._number).set(memory)
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._open_files_limit.labels(self._number).set(limit)
        self._count_files(limit)
        self._lag.follow()
        self._pauses.follow()

    async def measure_loop(self) -> None:
        """For ever, note how late the event loop is, and how long collections take."""
        gc.callbacks.append(self._note_collection)
        try:
            while True:
                due_at = time.perf_counter() + LOOP_SECONDS
                await asyncio.sleep(LOOP_SECONDS)
                self._lag.note(max(0.0, time.perf_counter() - due_at))
        finally:
            gc.callbacks.remove(self._note_collection)

    def _count_files(self, limit: int) -> None:
        count = files_by_system()
        if count is None and time.monotonic() - self._counted_at >= BETWEEN_COUNTS_SECONDS:
            self._counted_at = time.monotonic()
            count = listed_files(limit)
        if count is not None:
            self._open_files.labels(self._number).set(count)

    def _note_collection(self, phase: str, _: dict[str, Any]) -> None:
        # A collection may interrupt a metric that holds its lock: it must not wait for one.
        if phase == "start":
            self._collecting_since = time.perf_counter()
        else:
            self._pauses.note(time.perf_counter() - self._collecting_since)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, ["process"], registry=self._registry, multiprocess_mode="livemax")


def resident_bytes() -> int | None:
    """Return the memory that this process has, if the system says it."""
    try:
        pages = int(STATM.read_text().split()[1])
    except OSError:  # or no file can be opened any more
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def files_by_system() -> int | None:
    """Return how many files are open, where the system counts them: Linux from 6.2 on."""
    try:
        return OPEN_FILES.stat().st_size or None
    except OSError:
        return None


def listed_files(limit: int) -> int | None:
    """Return how many files are open, one by one; `limit` if no more can be opened for that."""
    try:
        return len(os.listdir(OPEN_FILES))
    except OSError as error:
        return limit if error.errno == errno.EMFILE else None
