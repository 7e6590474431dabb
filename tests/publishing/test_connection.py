"""Publishing calls that are given no connection."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from brain.embedded import binaries
from brain.errors import DatabaseUnreachable
from brain.publishing.connection import embedded_folder
from brain.publishing.messages import publish


@pytest.fixture(autouse=True)
def without_a_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No database is configured; PostgreSQL is searched in `tmp_path` alone, and anew."""
    for name in ("BRAIN_DATABASE_URL", "DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(binaries, "_candidates", lambda: iter((tmp_path,)))
    embedded_folder.cache_clear()
    yield
    embedded_folder.cache_clear()


async def test_without_any_postgresql_the_error_says_how_to_name_a_database() -> None:
    with pytest.raises(DatabaseUnreachable, match="set BRAIN_DATABASE_URL"):
        await publish("news", "greeting")


async def test_looking_for_the_embedded_server_keeps_no_other_task_waiting(tmp_path: Path) -> None:
    fifo, runs = tmp_path / "fifo", tmp_path / "runs"
    os.mkfifo(fifo)
    for name in ("postgres", "initdb"):
        # A version that no embedded server on this machine has.
        (tmp_path / name).write_text(
            f"#!/bin/sh\necho >> {runs}\nread go < {fifo}\necho 'postgres (PostgreSQL) 97.1'\n"
        )
        (tmp_path / name).chmod(0o755)

    publishing = asyncio.create_task(publish("news", "greeting"))
    async with asyncio.timeout(9):
        while not runs.exists():
            assert not publishing.done()
            await asyncio.sleep(0.01)
        writing = await asyncio.to_thread(fifo.open, "w")
        with writing:
            writing.write("go\n")
        with pytest.raises(DatabaseUnreachable, match="set BRAIN_DATABASE_URL"):
            await publishing
        with pytest.raises(DatabaseUnreachable, match="set BRAIN_DATABASE_URL"):
            await publish("news", "greeting")

    assert len(runs.read_text().splitlines()) == 1
