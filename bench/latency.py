"""
How long a committed change takes to reach a client, beside what PostgreSQL itself needs for it.

    python -m bench.latency [--changes 1000] [--pause 0.01]

In one run, taking turns on one server that flushes its commits to disk: a bare LISTEN/NOTIFY, which
is the floor for anything that PostgreSQL tells; and an UPDATE of a task, told to a WebSocket client
by a Brain in a process of its own. The clock starts when the writer sends COMMIT and stops in the
listener's callback, or when the client's `recv()` returns. Writer and client are this process.
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

from brain.database.embedded import serve_embedded
from brain.database.migrations import migrate, shipped
from tests.end_to_end.brain import running_brain


async def notify_milliseconds(
    connection: asyncpg.Connection, heard: asyncio.Queue[float], payload: str
) -> float:
    await connection.execute("BEGIN")
    await connection.execute("SELECT pg_notify('floor', $1)", payload)
    sent = time.perf_counter()
    await connection.execute("COMMIT")
    return (await heard.get() - sent) * 1000


async def message_milliseconds(
    connection: asyncpg.Connection, received: asyncio.Queue[tuple[float, int]], progress: int
) -> float:
    await connection.execute("BEGIN")
    await connection.execute("UPDATE tasks SET progress = $1 WHERE id = 'a'", progress)
    sent = time.perf_counter()
    await connection.execute("COMMIT")
    at, told = await received.get()
    assert told == progress
    return (at - sent) * 1000


async def receive(client: ClientConnection, received: asyncio.Queue[tuple[float, int]]) -> None:
    """Note when each message came, whatever the writer is waiting for at that moment."""
    async for text in client:
        at = time.perf_counter()
        received.put_nowait((at, json.loads(text)["data"]["progress"]))


async def measure(
    url: str, port: int, changes: int, pause: float
) -> tuple[list[float], list[float]]:
    """Return the milliseconds of the floor and of Brain, for `changes` changes each."""
    writer = await asyncpg.connect(url)
    listener = await asyncpg.connect(url)
    heard: asyncio.Queue[float] = asyncio.Queue()
    await listener.add_listener("floor", lambda *_: heard.put_nowait(time.perf_counter()))
    received: asyncio.Queue[tuple[float, int]] = asyncio.Queue()
    floor, brain = [], []
    async with (
        connect(f"ws://localhost:{port}/ws", proxy=None) as client,
        asyncio.TaskGroup() as tasks,
    ):
        await client.recv()
        receiving = tasks.create_task(receive(client, received))
        await writer.execute("INSERT INTO tasks (id) VALUES ('a')")
        await received.get()
        for number in range(1, changes + 1):
            floor.append(await notify_milliseconds(writer, heard, str(number)))
            await asyncio.sleep(pause)
            brain.append(await message_milliseconds(writer, received, number))
            await asyncio.sleep(pause)
        receiving.cancel()
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
    with tempfile.TemporaryDirectory() as folder:
        with serve_embedded(Path(folder, "database")) as server:
            await migrate(server.url, shipped())
            async with running_brain(Path(folder), "--database-url", server.url) as brain:
                floor, told = await measure(
                    server.url, brain.port, arguments.changes, arguments.pause
                )
    print(
        f"{arguments.changes} changes, PostgreSQL {server.binaries.version},"
        f" Python {platform.python_version()}"
    )
    print(f"{'milliseconds from COMMIT':<28}{'p50':>18}{'p99':>18}")
    print(row("bare LISTEN/NOTIFY", floor, floor))
    print(row("UPDATE to WebSocket client", told, floor))


if __name__ == "__main__":
    asyncio.run(main())
