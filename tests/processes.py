"""Finds running processes."""

from __future__ import annotations

from pathlib import Path


def working_in(folder: Path) -> list[int]:
    """Return the ids of the processes that run in a folder, as a PostgreSQL server does."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            place, command = (process / "cwd").readlink(), (process / "cmdline").read_bytes()
        except OSError:
            continue
        if command and place.is_relative_to(folder):
            found.append(int(process.name))
    return found
