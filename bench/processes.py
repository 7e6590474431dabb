"""Processor time and memory of a process, from /proc. Needs Linux."""

from __future__ import annotations

import os
import re
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def cpu_seconds(process: int) -> float:
    """Return the processor time of a process so far, in steps of about 10 ms."""
    return sum(_ticks(process)[:2]) / TICKS_PER_SECOND


def family_cpu_seconds(process: int) -> float:
    """Return the processor time of a process and its children, living and ended."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    living = sum(sum(_ticks(int(child))[:2]) for child in children)
    return (living + sum(_ticks(process))) / TICKS_PER_SECOND


def cpu_nanoseconds(process: int) -> int:
    """Return the processor time of a single-threaded process so far; exact while it sleeps."""
    return int(Path(f"/proc/{process}/schedstat").read_text().split()[0])


def resident_bytes(process: int) -> int:
    return _status_bytes(process, "VmRSS")


def peak_resident_bytes(process: int) -> int:
    return _status_bytes(process, "VmHWM")


def forget_peak(process: int) -> None:
    """Have the peak of resident memory begin anew; see proc_pid_clear_refs(5)."""
    Path(f"/proc/{process}/clear_refs").write_text("5")


def _ticks(process: int) -> list[int]:
    """Return utime, stime, cutime and cstime; zeros for a process that has just ended."""
    try:
        text = Path(f"/proc/{process}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return [0, 0, 0, 0]
    # The name of the program is in brackets and may contain any character.
    return [int(field) for field in text.rpartition(")")[2].split()[11:15]]


def _status_bytes(process: int, name: str) -> int:
    text = Path(f"/proc/{process}/status").read_text()
    match = re.search(rf"^{name}:\s+(\d+) kB$", text, re.MULTILINE)
    assert match, text
    return int(match[1]) * 1024
