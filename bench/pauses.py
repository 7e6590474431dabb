"""
Measure the pauses of Python's garbage collector under load, with clients that come and go.

    python -m bench.pauses [--seconds 1200] [--rate 5000] [--clients 1000] [--stay-seconds 20]

pgbench updates one task out of as many as there are clients per transaction, and each client of
brain.v1 is subscribed to one of them: see `bench.passing_clients`. The server notes each collection
of its garbage collector (`bench.noting_collections`). The output shows how many there were of each
generation, how long the longest took, how many took more than 1, 2, 5 and 10 ms, each one that took
more than 5 ms, the latency, and the memory of the server over time. Latency is measured from the
statement to the client. The server has one core to itself; clients, pgbench and PostgreSQL share
the other one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import sys
import tempfile
import time
from array import array
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.client import WITHOUT_PINGS
from bench.noting_collections import Collection, collections_in
from bench.percentile import percentile
from bench.processes import resident_bytes
from bench.row_topics import STAMPING
from bench.server import PATIENCE_SECONDS, Server, running_server
from bench.usage import chosen_cores, end, family_time, on_core
from tests.end_to_end.brain import READY, logged, running

WRITERS = 16
# Until the changes of the first two seconds have arrived.
SETTLING_SECONDS = 2.0
# On a core: the aim is that none takes more than ten.
COUNTED_MILLISECONDS = (1, 2, 5, 10)
SHOWN_MILLISECONDS = 5
# The longest reply of the clients.
LINE_BYTES = 64 * 2**20
# How often memory is shown.
MEMORY_SAMPLES = 12


@dataclass
class Measured:
    began_at: float = 0.0
    """By `time.monotonic()`, like the other times."""
    ended_at: float = 0.0
    writes_per_second: float = 0.0
    came: int = 0
    """Clients that came in the place of others."""
    server_share: float = 0.0
    milliseconds: array[float] = field(default_factory=lambda: array("f"))
    resident: list[int] = field(default_factory=list)
    """Bytes, once a second."""
    collections: Sequence[Collection] = ()


@asynccontextmanager
async def running_brain(url: str, folder: Path) -> AsyncIterator[tuple[int, int, Path]]:
    """Run a Brain; yield its port, its process id, and where its collections are noted."""
    noted, output = folder / "collections", folder / "brain.log"
    command = (sys.executable, "-m", "bench.noting_collections", str(noted), "serve")
    options = ("--port", "0", "--host", "127.0.0.1", "--database-url", url)
    async with running((*command, *options), output, WITHOUT_PINGS) as process:
        yield int((await logged(output, READY, process))[1]), process.pid, noted


class Clients:
    """Controls the process of the clients."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def reply(self) -> tuple[int, list[float]]:
        assert self._process.stdout
        async with asyncio.timeout(PATIENCE_SECONDS):
            came, ages = json.loads(await self._process.stdout.readline())
        return came, ages

    async def news(self) -> tuple[int, list[float]]:
        """Return how many have come since the last call, and the ages of what was received."""
        assert self._process.stdin
        self._process.stdin.write(b"\n")
        return await self.reply()


@asynccontextmanager
async def running_clients(port: int, clients: int, stay_seconds: float) -> AsyncIterator[Clients]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.passing_clients"),
        *(str(port), str(clients), str(stay_seconds)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=LINE_BYTES,
    )
    try:
        passing = Clients(process)
        await passing.reply()
        yield passing
    finally:
        await end(process)


async def measure(server: Server, folder: Path, arguments: argparse.Namespace) -> Measured:
    measured = Measured()
    statement = " ".join(STAMPING.format(clients=arguments.clients).split())
    async with AsyncExitStack() as stack:
        with on_core(chosen_cores().server):
            port, process_id, noted = await stack.enter_async_context(
                running_brain(server.url, folder)
            )
        async with running_clients(port, arguments.clients, arguments.stay_seconds) as clients:
            await server.write(statement, writers=WRITERS, seconds=2, rate=arguments.rate)
            await asyncio.sleep(SETTLING_SECONDS)
            await clients.news()
            measured.began_at = time.monotonic()
            spent = family_time(process_id).spent
            writing = asyncio.create_task(
                server.write(
                    statement, writers=WRITERS, seconds=arguments.seconds, rate=arguments.rate
                )
            )
            while not writing.done():
                await asyncio.wait([writing], timeout=1)
                measured.resident.append(resident_bytes(process_id))
                came, ages = await clients.news()
                measured.came += came
                measured.milliseconds.extend(ages)
            measured.ended_at = time.monotonic()
            measured.writes_per_second = (await writing).rate
            passed = measured.ended_at - measured.began_at
            measured.server_share = (family_time(process_id).spent - spent) / passed
    measured.collections = [
        one
        for one in collections_in(noted)
        if measured.began_at <= one.began_at <= measured.ended_at
    ]
    return measured


def print_collections(measured: Measured) -> None:
    most = "".join(f"{f'> {milliseconds} ms':>9}" for milliseconds in COUNTED_MILLISECONDS)
    print(f"{'collections':<16}{'number':>8}{'longest, ms':>13}{'on a core':>11}{most}")
    for generation in range(3):
        these = [one for one in measured.collections if one.generation == generation]
        took = [one.processor_seconds * 1000 for one in these]
        longer = "".join(f"{sum(ms > least for ms in took):>9}" for least in COUNTED_MILLISECONDS)
        print(
            f"  generation {generation:<3}{len(these):>8,}"
            f"{max([one.seconds * 1000 for one in these], default=0):>13.1f}"
            f"{max(took, default=0):>11.1f}{longer}"
        )
    for one in measured.collections:
        if one.processor_seconds * 1000 > SHOWN_MILLISECONDS:
            at = one.began_at - measured.began_at
            print(
                f"  generation {one.generation} at {at:.2f} s: {one.processor_seconds * 1000:.1f}"
            )


def print_measured(measured: Measured, arguments: argparse.Namespace) -> None:
    print(
        f"{measured.writes_per_second:,.0f} writes/s for {arguments.seconds} s;"
        f" {arguments.clients:,} clients of brain.v1, a row topic each, and {measured.came:,} came"
        f" in the place of others; Brain {measured.server_share:.0%} of a core\n"
    )
    print_collections(measured)
    ages = measured.milliseconds
    print(
        f"\nlatency, ms: p50 {percentile(ages, 50):.2f}, p99 {percentile(ages, 99):.2f},"
        f" most {max(ages):.1f}; {len(ages):,} messages"
    )
    step = max(1, len(measured.resident) // MEMORY_SAMPLES)
    shown = [f"{size / 2**20:.0f}" for size in measured.resident[::step]]
    print(f"memory of the server every {step} s, MiB: {' '.join(shown)}")


async def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().partition("\n\n")[0])
    parser.add_argument("--seconds", type=int, default=1200)
    parser.add_argument("--rate", type=int, default=5000, help="writes per second")
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--stay-seconds", type=float, default=20, help="of a client")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, on_core(chosen_cores().clients):
        async with running_server(Path(folder)) as server:
            version = server.embedded.binaries.version
            print(f"PostgreSQL {version}, Python {platform.python_version()}")
            print_measured(await measure(server, Path(folder), arguments), arguments)


if __name__ == "__main__":
    asyncio.run(main())
