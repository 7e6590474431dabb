"""What a server used, its child processes included, and on which core; its end. Needs Linux."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple


class Cores(NamedTuple):
    """The server has one to itself; clients, PostgreSQL and the benchmark share the other."""

    server: int
    clients: int


def chosen_cores() -> Cores:
    """Return two cores that this process may use; the same one twice if there are no two."""
    usable = sorted(os.sched_getaffinity(0))
    return Cores(server=usable[-1], clients=usable[0])


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """Run on this core until the context ends; processes that are started meanwhile stay there."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def family(process: int) -> list[int]:
    """Return a process and its living children."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text()
    return [process, *map(int, children.split())]


class ProcessorTime(NamedTuple):
    """Of all threads of a process and its children so far, in seconds."""

    spent: float
    """On a processor."""
    waited: float
    """Ready to run, while somebody else had the processor."""


def family_time(process: int) -> ProcessorTime:
    spent = waited = 0
    for member in family(process):
        for thread in Path(f"/proc/{member}/task").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):
                fields = (thread / "schedstat").read_text().split()
                spent, waited = spent + int(fields[0]), waited + int(fields[1])
    return ProcessorTime(spent / 1e9, waited / 1e9)


async def end(process: asyncio.subprocess.Process) -> None:
    """Kill a process that has nothing to put in order; Ctrl-C may have ended it already."""
    with suppress(ProcessLookupError):
        process.kill()
    await process.wait()


def private_bytes(process: int) -> int:
    """Return the memory that a process shares with nobody, as its page tables have it."""
    text = Path(f"/proc/{process}/smaps_rollup").read_text()
    return sum(int(kib) for kib in re.findall(r"^Private_\w+:\s+(\d+) kB$", text, re.M)) * 1024
