"""The processes of nodes on this machine, as /proc shows them."""

from __future__ import annotations

import os
import socket
from pathlib import Path

PROC = Path("/proc")
# A worker that has just begun has not reported yet.
YOUNG_SECONDS = 15.0


def process_of(node: str) -> int | None:
    """Return the process of a node, if it runs on this machine."""
    host, _, number = node.rpartition(" ")
    if host != socket.gethostname() or not number.isdigit():
        return None
    return int(number) if is_of_brain(int(number)) else None


def command_of(pid: int) -> bytes:
    """Return the command line of a process; empty if there is none."""
    try:
        return (PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        return b""


def is_of_brain(pid: int) -> bool:
    return b"brain" in command_of(pid)


def silent_workers(nodes: list[str]) -> list[int]:
    """
    Return the workers beside those of `nodes` that are none of them.

    A supervisor has forked its workers: all have its command line.
    """
    reporting = {pid for node in nodes if (pid := process_of(node)) is not None}
    supervisors = {
        parent for pid in reporting if command_of(parent := parent_of(pid)) == command_of(pid)
    }
    return [
        pid
        for pid in (every_process() if supervisors else [])
        if pid not in reporting
        and (parent := parent_of(pid)) in supervisors
        and command_of(pid) == command_of(parent)
        and age_of(pid) > YOUNG_SECONDS
    ]


def every_process() -> list[int]:
    try:
        return sorted(int(name) for name in os.listdir(PROC) if name.isdigit())
    except OSError:  # no such system
        return []


def fields_of(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat behind the name, which may have blanks in it."""
    try:
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def parent_of(pid: int) -> int:
    """Return the process that has started another one; 0 if that is not known."""
    fields = fields_of(pid)
    return int(fields[1]) if fields else 0


def age_of(pid: int) -> float:
    """Return for how many seconds a process has run; 0 if that is not known."""
    fields = fields_of(pid)
    try:
        uptime = float((PROC / "uptime").read_text().split()[0])
        return uptime - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError, ValueError):
        return 0.0
