"""Processor time and memory of a server, with its child processes, and its core. Needs Linux."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple


class Cores(NamedTuple):
    """One core for the server; one for clients, PostgreSQL and the benchmark."""

    server: int
    clients: int


def chosen_cores() -> Cores:
    """Return two cores that this process may use, or the same one twice if it has only one."""
    usable = sorted(os.sched_getaffinity(0))
    return Cores(server=usable[-1], clients=usable[0])


@contextmanager
def on_core(*cores: int) -> Iterator[None]:
    """Run on one of these cores until the context ends; so do processes started meanwhile."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def family(process: int) -> list[int]:
    """Return a process and its living children."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text()
    return [process, *map(int, children.split())]


class ProcessorTime(NamedTuple):
    """Seconds of all threads of a process and its children so far."""

    spent: float
    """Running on a processor."""
    waited: float
    """Ready to run, while other processes used the processor."""


def family_time(process: int) -> ProcessorTime:
    spent = waited = 0
    for member in family(process):
        for thread in Path(f"/proc/{member}/task").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):
                fields = (thread / "schedstat").read_text().split()
                spent, waited = spent + int(fields[0]), waited + int(fields[1])
    return ProcessorTime(spent / 1e9, waited / 1e9)


async def end(process: asyncio.subprocess.Process) -> None:
    """Kill a process that needs no cleanup; Ctrl-C may have ended it already."""
    with suppress(ProcessLookupError):
        process.kill()
    await process.wait()


def private_bytes(process: int) -> int:
    """Return the private memory of a process, by its page tables."""
    text = Path(f"/proc/{process}/smaps_rollup").read_text()
    return sum(int(kib) for kib in re.findall(r"^Private_\w+:\s+(\d+) kB$", text, re.M)) * 1024
