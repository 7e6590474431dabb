"""This machine: the open files and the memory of the nodes that run on it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from brain.doctor.check import check
from brain.doctor.examination import Examination
from brain.doctor.finding import Facts, Finding, NotChecked, failure, ok, warning
from brain.doctor.processes import PROC, process_of

CGROUPS = Path("/sys/fs/cgroup")
# Connections to the database, listening sockets, what is open for a moment.
RESERVE = 50
NEARLY_ALL = 0.8
LEAST_FREE_SHARE = 0.05
RAISE_FILES = (
    "raise the limit where brain serve is started: LimitNOFILE= of systemd, ulimits of Docker,"
    " ulimit -n; some thousands above BRAIN_MAX_CONNECTIONS"
)


@dataclass(frozen=True, slots=True)
class OpenFiles:
    """The open files of a process."""

    name: str
    used: int
    limit: int


def processes_here(examination: Examination) -> dict[str, int]:
    """Return the processes of nodes that run on this machine. Raises `NotChecked`."""
    names = examination.shared.get("nodes", []) + examination.shared.get("silent nodes", [])
    found = {name: pid for name in names if (pid := process_of(name)) is not None}
    if not found:
        raise NotChecked(
            "no node is known to run on this machine",
            "run brain doctor on the machine of brain serve, or pass --metrics-url",
        )
    return found


def of_open_files(processes: list[OpenFiles], most_connections: int) -> Finding:
    """Return what it means that processes have so many files open."""
    worst = max(processes, key=lambda each: each.used / each.limit)
    text = f"the process {worst.name} has {worst.used:,} of {worst.limit:,} files open"
    facts: Facts = {
        "processes": [
            {"name": each.name, "open_files": each.used, "limit": each.limit} for each in processes
        ]
    }
    if worst.used >= worst.limit - RESERVE or worst.used >= 0.98 * worst.limit:
        return failure(
            f"open files are used up: {text}; no client can connect any more", RAISE_FILES, **facts
        )
    if worst.used >= NEARLY_ALL * worst.limit:
        return warning(f"open files are nearly used up: {text}", RAISE_FILES, **facts)
    if worst.limit < most_connections:
        return warning(
            f"{text}: the limit comes before BRAIN_MAX_CONNECTIONS ({most_connections:,})",
            RAISE_FILES,
            **facts,
        )
    return ok(text, **facts)


def open_files_of(name: str, pid: int) -> OpenFiles:
    """Return the open files of a process on this machine. Raises OSError."""
    folder = PROC / str(pid)
    match = re.search(r"Max open files\s+(\d+)", (folder / "limits").read_text())
    if match is None:
        raise OSError("it has no limit")
    return OpenFiles(name, len(os.listdir(folder / "fd")), int(match[1]))


@check("host.open_files")
async def open_files(examination: Examination) -> Finding:
    """The nodes on this machine may open more files, of which each client is one."""
    processes = processes_here(examination)
    try:
        found = [open_files_of(name, pid) for name, pid in processes.items()]
    except OSError:
        raise NotChecked(
            "the open files of a node cannot be seen",
            "run brain doctor as the user of brain serve, or pass --metrics-url",
        ) from None
    return of_open_files(found, examination.settings.max_connections)


@check("host.memory")
async def memory(examination: Examination) -> Finding:
    """The machine, and the control group of each node on it, have memory left."""
    try:
        total, free = memory_of_machine()
    except (OSError, KeyError, ValueError):
        raise NotChecked("the memory of this machine cannot be seen", "look with free -m") from None
    facts: Facts = {"total_bytes": total, "available_bytes": free}
    places = [("this machine", total, free)]
    try:
        nodes = processes_here(examination)
    except NotChecked:
        nodes = {}
    for name, pid in nodes.items():
        facts.setdefault("nodes", []).append({"name": name, "bytes": resident_bytes(pid)})
        if (limit := memory_of_control_group(pid)) is not None:
            places.append((f"the control group of the node {name}", *limit))
    place, total, free = min(places, key=lambda each: each[2] / each[1])
    text = f"{place} has {in_mebibytes(free)} of {in_mebibytes(total)} available"
    if free < LEAST_FREE_SHARE * total:
        return warning(
            f"memory is nearly used up: {text}",
            "find what takes it (ps --sort -rss), give the machine or the container more, or lower"
            " BRAIN_RING_BYTES, BRAIN_SNAPSHOT_BYTES or BRAIN_MAX_CONNECTIONS",
            **facts,
        )
    return ok(text, **facts)


def memory_of_machine() -> tuple[int, int]:
    """Return the memory of this machine, and what is available of it, in bytes."""
    lines = (PROC / "meminfo").read_text().splitlines()
    found = dict(line.split(":", 1) for line in lines)
    total, free = (int(found[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
    return total, free


def memory_of_control_group(pid: int) -> tuple[int, int] | None:
    """Return the memory that the control group of a process may have, and what is left of it."""
    try:
        group = (PROC / str(pid) / "cgroup").read_text().strip().rpartition("0::")[2].lstrip("/")
        most = int((CGROUPS / group / "memory.max").read_text())
        used = int((CGROUPS / group / "memory.current").read_text())
        statistics = (CGROUPS / group / "memory.stat").read_text()
    except (OSError, ValueError):  # there is none, or no limit
        return None
    return most, most - used + cached_bytes(statistics)


def cached_bytes(statistics: str) -> int:
    """Return what a control group would give back at once: pages of files that nobody uses."""
    match = re.search(r"^inactive_file (\d+)$", statistics, re.MULTILINE)
    return 0 if match is None else int(match[1])


def resident_bytes(pid: int) -> int | None:
    """Return the resident memory of a process."""
    try:
        pages = int((PROC / str(pid) / "statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def in_mebibytes(count: int) -> str:
    return f"{count / 1024**2:,.0f} MiB"
