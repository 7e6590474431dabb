"""
`brain` that notes how long the collections of its garbage collector take.

    python -m bench.noting_collections FILE serve ...

Each is a line of FILE: when it began, by `time.monotonic()`, its generation, how many seconds it
took, and how many of them it ran on a processor.
"""

from __future__ import annotations

import gc
import runpy
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple, TextIO


class Collection(NamedTuple):
    began_at: float
    generation: int
    seconds: float
    processor_seconds: float
    """Less than `seconds` where other processes had its core meanwhile."""


class Noting:
    """A callback of `gc.callbacks`."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._began_at = self._spent = 0.0

    def __call__(self, phase: str, info: dict[str, Any]) -> None:
        now, spent = time.monotonic(), time.thread_time()
        if phase == "start":
            self._began_at, self._spent = now, spent
        else:
            generation, seconds = info["generation"], now - self._began_at
            # In a buffer, which is rarely written and lost only if the process is killed.
            print(self._began_at, generation, seconds, spent - self._spent, file=self._file)


def collections_in(path: Path) -> list[Collection]:
    """Return what a process has noted that has ended."""
    lines = map(str.split, path.read_text().splitlines())
    return [Collection(float(at), int(number), *map(float, took)) for at, number, *took in lines]


def main() -> None:
    path = sys.argv.pop(1)
    with Path(path).open("w", buffering=2**16) as file:
        gc.callbacks.append(Noting(file))
        runpy.run_module("brain", run_name="__main__")


if __name__ == "__main__":
    main()
