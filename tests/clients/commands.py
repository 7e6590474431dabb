"""Runs commands that have to succeed."""

from __future__ import annotations

from pathlib import Path

from tests.end_to_end.brain import ended

PATIENCE_SECONDS = 110.0


async def done(*command: str | Path, cwd: Path, **environment: str) -> str:
    """Run a command, and return what it prints; fail the test with all that it says otherwise."""
    words = [str(word) for word in command]
    found = await ended(words, environment, cwd=cwd, patience_seconds=PATIENCE_SECONDS)
    assert found.status == 0, f"{' '.join(words)}: {found.stdout}{found.stderr}"
    return found.stdout
