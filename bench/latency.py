"""
How long a committed change takes to reach a client, beside what PostgreSQL itself needs for it.

    python -m bench.latency [--changes 1000] [--pause 0.01]

In one run, taking turns on one server: a bare LISTEN/NOTIFY from commit to callback, which is the
floor for anything that is told by PostgreSQL; and an UPDATE of a task from its commit to the
message that a WebSocket client receives from a Brain in a process of its own. The clock stops when
the client's `recv()` returns. Writer and client are this process.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import asyncpg
from websockets.asyncio.client import ClientConnection, connect

from brain.database.migrations import migrate, shipped
from tests.end_to_end.brain import running_brain
from tests.postgres import new_database, server_for_tests


async def notify_milliseconds(
    connection: asyncpg.Connection, heard: asyncio.Queue[float], payload: str
) -> float:
    await connection.execute("SELECT pg_notify('floor', $1)", payload)
    committed = time.perf_counter()
    return (await heard.get() - committed) * 1000


async def message_milliseconds(
    connection: asyncpg.Connection, client: ClientConnection, progress: int
) -> float:
    await connection.execute("UPDATE tasks SET progress = $1 WHERE id = 'a'", progress)
    committed = time.perf_counter()
    message = json.loads(await client.recv())
    received = time.perf_counter()
    assert message["data"]["progress"] == progress
    return (received - committed) * 1000


async def measure(
    url: str, port: int, changes: int, pause: float
) -> tuple[list[float], list[float]]:
    """Return the milliseconds of the floor and of Brain, for `changes` changes each."""
    writer = await asyncpg.connect(url)
    listener = await asyncpg.connect(url)
    heard: asyncio.Queue[float] = asyncio.Queue()
    await listener.add_listener("floor", lambda *_: heard.put_nowait(time.perf_counter()))
    await writer.execute("INSERT INTO tasks (id) VALUES ('a')")
    floor, brain = [], []
    async with connect(f"ws://localhost:{port}/ws", proxy=None) as client:
        await client.recv()
        while json.loads(await client.recv())["data"]["id"] != "a":
            pass
        for number in range(1, changes + 1):
            floor.append(await notify_milliseconds(writer, heard, str(number)))
            await asyncio.sleep(pause)
            brain.append(await message_milliseconds(writer, client, number))
            await asyncio.sleep(pause)
    await listener.close()
    await writer.close()
    return floor, brain


def row(name: str, milliseconds: Sequence[float], floor: Sequence[float]) -> str:
    def percentile(values: Sequence[float], percent: int) -> float:
        return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]

    cells = [
        f"{percentile(milliseconds, percent):8.2f}"
        f" ({percentile(milliseconds, percent) / percentile(floor, percent):.1f} x)"
        for percent in (50, 99)
    ]
    return f"{name:<28}" + "".join(f"{cell:>18}" for cell in cells)


async def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--changes", type=int, default=1000)
    parser.add_argument("--pause", type=float, default=0.01, help="seconds between two changes")
    arguments = parser.parse_args()
    with server_for_tests() as server, tempfile.TemporaryDirectory() as folder:
        async with new_database(server) as url:
            await migrate(url, shipped())
            async with running_brain(Path(folder), "--database-url", url) as brain:
                floor, told = await measure(url, brain.port, arguments.changes, arguments.pause)
            version = (await version_of(url)).split(" on ")[0]
    print(f"{arguments.changes} changes, {version}, Python {platform.python_version()}")
    print(f"{'milliseconds after commit':<28}{'p50':>18}{'p99':>18}")
    print(row("bare LISTEN/NOTIFY", floor, floor))
    print(row("UPDATE to WebSocket client", told, floor))


async def version_of(url: str) -> str:
    connection = await asyncpg.connect(url)
    version: str = await connection.fetchval("SELECT version()")
    await connection.close()
    return version


if __name__ == "__main__":
    asyncio.run(main())
