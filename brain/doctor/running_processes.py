"""The processes of a running Brain, by its metrics: whether they hang, follow, and have room."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from httpx2 import HTTPError

from brain.doctor.address import Place
from brain.doctor.check import check
from brain.doctor.examination import Examination
from brain.doctor.exposition import Exposition
from brain.doctor.finding import Facts, Finding, NotChecked, failure, ok, warning
from brain.doctor.host import OpenFiles, memory_of_machine, of_open_files
from brain.doctor.metrics import metrics_url, scrape, scraped
from brain.settings import is_loopback_name

BETWEEN_SCRAPES_SECONDS = 1.0
HUNG_SECONDS = 5.0
# Of a node at rest; beyond it, the log is not read.
LAG_SECONDS = 5.0
LATE_SECONDS = 0.25
NEARLY_ALL = 0.9


@check("metrics.workers")
async def workers(examination: Examination) -> Finding:
    """Each worker is up, and its event loop runs."""
    return of_workers(scraped(examination))


def of_workers(metrics: Exposition) -> Finding:
    """Return which workers are missing, hang, or were replaced."""
    wanted = metrics.total("brain_workers", state="wanted") or 0
    up = metrics.total("brain_workers", state="up") or 0
    restarts = metrics.by("brain_worker_restarts_total", "reason")
    hung = [
        (labels.get("process", "?"), metrics.at - value)
        for labels, value in metrics.of("brain_heartbeat_timestamp_seconds")
        if metrics.at - value > HUNG_SECONDS
    ]
    facts: Facts = {"wanted": wanted, "up": up, "restarts": restarts}
    replace = (
        "with --workers it is replaced after BRAIN_WORKER_TIMEOUT_SECONDS; a single process: kill"
        " -9 it, its supervisor (systemd, Docker) starts another; the log has its stacks"
    )
    if hung:
        number, seconds = max(hung, key=lambda each: each[1])
        return failure(
            f"worker {number} hangs: its event loop has not run for {seconds:.0f} s",
            replace,
            **facts,
        )
    if up < wanted:
        return failure(
            f"{up:g} of {wanted:g} workers are up",
            "the log says why the others ended; they are started again",
            **facts,
        )
    faults = {reason: restarts.get(reason, 0.0) for reason in ("hung", "died")}
    if any(faults.values()):
        return warning(
            f"workers were replaced: {faults['hung']:g} that hung, {faults['died']:g} that died",
            "the log says what they were doing: a call that blocks, memory, a signal",
            **facts,
        )
    return ok(f"{up:g} of {wanted:g} workers are up, and none was replaced for a fault", **facts)


@check("metrics.database")
async def database(examination: Examination) -> Finding:
    """Each worker follows the database."""
    return of_database(scraped(examination), examination.settings.idle_poll_seconds)


def of_database(metrics: Exposition, idle_poll_seconds: float) -> Finding:
    """Return whether the log is followed."""
    lag = metrics.total("brain_tick_lag_seconds")
    facts: Facts = {"tick_lag_seconds": lag}
    way_out = "see the database.… checks, and the log of the node"
    if metrics.total("brain_database_up") == 0:
        return failure("a worker does not follow the database", way_out, **facts)
    if lag is not None and lag > idle_poll_seconds + LAG_SECONDS:
        return failure(f"the log was last read to its end {lag:.0f} s ago", way_out, **facts)
    return ok("the database is followed", **facts)


@check("metrics.open_files")
async def open_files(examination: Examination) -> Finding:
    """The processes may open more files."""
    return of_files(scraped(examination), examination.settings.max_connections)


def of_files(metrics: Exposition, most_connections: int) -> Finding:
    """Return what the open files of each process mean."""
    limits = metrics.by("brain_open_files_limit", "process")
    used = metrics.by("brain_open_files", "process")
    found = [
        OpenFiles(f"worker {number}", int(used[number]), int(limit))
        for number, limit in limits.items()
        if limit > 0 and number in used
    ]
    if not found:
        raise NotChecked("the metrics have no open files", "look with ls /proc/PID/fd | wc -l")
    return of_open_files(found, most_connections)


@check("metrics.memory")
async def memory(examination: Examination) -> Finding:
    """The processes leave memory to others, if they run on this machine."""
    metrics, total = scraped(examination), None
    if is_loopback_name(Place.of(metrics_url(examination)[0]).host):
        with suppress(OSError, KeyError, ValueError):
            total, _ = memory_of_machine()
    return of_memory(metrics, total)


def of_memory(metrics: Exposition, total_bytes: int | None) -> Finding:
    """Return how much memory the processes have, of that of the machine if it is this one."""
    used = metrics.by("brain_memory_bytes", "process")
    size = sum(used.values())
    text = f"its processes have {size / 1024**2:,.0f} MiB together"
    if total_bytes is not None and size > NEARLY_ALL * total_bytes:
        return warning(
            f"{text}, nearly all of this machine",
            "more memory, or a lower BRAIN_RING_BYTES, BRAIN_SNAPSHOT_BYTES, BRAIN_MAX_CONNECTIONS",
            bytes=used,
        )
    return ok(text, bytes=used)


@check("metrics.event_loop", most_seconds=BETWEEN_SCRAPES_SECONDS + 5)
async def event_loop(examination: Examination) -> Finding:
    """The event loops run in time."""
    before = scraped(examination)
    await asyncio.sleep(BETWEEN_SCRAPES_SECONDS)
    try:
        after = await scrape(examination)
    except (HTTPError, ValueError):
        raise NotChecked("the metrics cannot be read again", "see metrics.reachable") from None
    examination.shared["metrics again"] = after
    return of_event_loop(after, before)


def of_event_loop(metrics: Exposition, before: Exposition | None = None) -> Finding:
    """Return how late event loops were, nine times of ten."""
    late = metrics.quantile("brain_event_loop_lag_seconds", 0.9, before)
    if late is None:
        raise NotChecked("no event loop was measured meanwhile", "see metrics.workers")
    if late > LATE_SECONDS:
        return warning(
            f"event loops are late, one time of ten by {late:g} s and more",
            "the processor is too slow for its load: more workers (BRAIN_WORKERS), or another"
            " machine; see brain_processor_seconds_total",
            late_seconds=late,
        )
    return ok(f"event loops are late by less than {late:g} s, nine times of ten", late_seconds=late)
