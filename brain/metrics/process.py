"""Metrics of a process: memory, open files, its event loop, its garbage collections."""

from __future__ import annotations

import asyncio
import gc
import os
import platform
import resource
import time
from collections import deque
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

import brain
from brain.metrics.followed import Followed

LAG_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
PAUSE_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
LOOP_SECONDS = 0.1
# Of those between two samples.
MOST_COLLECTIONS = 10_000
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
        self._lag = Histogram(
            "brain_event_loop_lag_seconds",
            "How late the event loop was, ten times a second.",
            buckets=LAG_BUCKETS,
            registry=registry,
        )
        self._pauses = Histogram(
            "brain_gc_pause_seconds",
            "How long a garbage collection has stopped the process.",
            buckets=PAUSE_BUCKETS,
            registry=registry,
        )
        self._collections: deque[float] = deque(maxlen=MOST_COLLECTIONS)
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
        self._memory.labels(self._number).set(resident_bytes())
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._open_files_limit.labels(self._number).set(limit)
        if time.monotonic() - self._counted_at >= BETWEEN_COUNTS_SECONDS or is_counted_by_system():
            self._counted_at = time.monotonic()
            self._open_files.labels(self._number).set(open_files())
        while self._collections:
            self._pauses.observe(self._collections.popleft())

    async def measure_loop(self) -> None:
        """For ever, note how late the event loop is, and how long collections take."""
        gc.callbacks.append(self._note_collection)
        try:
            while True:
                due_at = time.perf_counter() + LOOP_SECONDS
                await asyncio.sleep(LOOP_SECONDS)
                self._lag.observe(max(0.0, time.perf_counter() - due_at))
        finally:
            gc.callbacks.remove(self._note_collection)

    def _note_collection(self, phase: str, _: dict[str, Any]) -> None:
        # A collection may interrupt a metric that holds its lock: it is only noted here.
        if phase == "start":
            self._collecting_since = time.perf_counter()
        else:
            self._collections.append(time.perf_counter() - self._collecting_since)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, ["process"], registry=self._registry, multiprocess_mode="livemax")


def resident_bytes() -> int:
    """Return the memory that this process has; 0 where the system does not say."""
    try:
        pages = int(STATM.read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def is_counted_by_system() -> bool:
    """Return True where Linux, from 6.2 on, counts open files by itself."""
    try:
        return OPEN_FILES.stat().st_size > 0
    except OSError:
        return False


def open_files() -> int:
    """Return how many files are open; 0 where the system does not say."""
    try:
        return OPEN_FILES.stat().st_size or len(os.listdir(OPEN_FILES))
    except OSError:
        return 0
