"""
Measure how long one message to all clients is under way, from its first delivery to the last.

    python -m bench.broadcast [--clients 1000 10000] [--messages 100] [--frame-bytes 200]

- `socket.send` of one prepared frame to one client after the other (`bench.bare`): the limit for a
  server of one process that makes a system call per client.
- Brain, as `brain serve` runs it, in one process.
- Brain with `--workers 2`.

The first two run at the same time, each with its clients connected, and take turns, message by
message: the server has one core to itself, and the clients (`load.c`), PostgreSQL and this process
share the other one. Then the workers run; there is a core for each, and one of them shares its core
with the others. A message is published when every client has the previous one, after a pause.

The output shows, in milliseconds: from the first client that has read the message to the last one;
and when the first and the last have it after the publishing began, which for Brain includes the
transaction that publishes it. "disturbed" is the share of the time in which the server was ready to
run, but had to wait for a core.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg

from bench.bare import running_bare
from bench.brain import brain_for_many, publisher
from bench.contender import Contender
from bench.descriptors import fitting
from bench.dialects import WebSocketDialect
from bench.load import Receipt
from bench.match import BARE, BRAIN, Match, load_of
from bench.note import Notes
from bench.percentile import percentile
from bench.server import Server, running_server
from bench.usage import Cores, chosen_cores, family_time, on_core

WORKERS = 2

# For each number of clients, the milliseconds from the first delivery to the last.
AIMS = {1000: 10, 10_000: 100}

WARMING_MESSAGES = 20
EXAMINED_MESSAGES = 3
# At this rate Brain does not turn busy.
PAUSE_SECONDS = 0.02


@dataclass
class Row:
    """One server with one number of clients; all times in milliseconds."""

    name: str
    clients: int
    under_way: list[float] = field(default_factory=list)
    """For each message, from the first delivery to the last."""
    first: list[float] = field(default_factory=list)
    """From the publishing to the first delivery."""
    last: list[float] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)
    """Of which the server was ready to run, but had to wait for a core."""

    def add(self, begun: float, receipt: Receipt, waited: float) -> None:
        """Add a message; the times are in seconds."""
        self.under_way.append((receipt.last - receipt.first) * 1000)
        self.first.append((receipt.first - begun) * 1000)
        self.last.append((receipt.last - begun) * 1000)
        self.waited.append(waited * 1000)


@asynccontextmanager
async def publishing_brain(
    server: Server, notes: Notes, folder: Path, name: str, workers: int
) -> AsyncIterator[Contender]:
    writer = await asyncpg.connect(server.url)
    async with brain_for_many(server.url, folder, workers=workers) as brain:
        yield Contender(
            name,
            brain.port,
            brain.process.pid,
            publisher(writer, notes, "base"),
            WebSocketDialect("/ws?channel=base", is_greeted=True),
        )
    await writer.close()


@asynccontextmanager
async def running_alone(
    server: Server, notes: Notes, clients: int, folder: Path, cores: Cores
) -> AsyncIterator[list[Match]]:
    """Run the servers of one process, with their clients, until the context ends."""
    starts = (
        running_bare(BARE, notes, clients),
        publishing_brain(server, notes, folder, BRAIN, 1),
    )
    async with AsyncExitStack() as stack:
        matches = []
        for start in starts:
            with on_core(cores.server):
                contender = await stack.enter_async_context(start)
            load = await stack.enter_async_context(load_of(contender, notes, clients))
            matches.append(Match(contender, load, clients))
        yield matches


@asynccontextmanager
async def running_workers(
    server: Server, notes: Notes, clients: int, folder: Path, cores: Cores
) -> AsyncIterator[list[Match]]:
    """Run the workers, each on any core, with their clients, until the context ends."""
    name = f"{BRAIN}, --workers {WORKERS}"
    async with AsyncExitStack() as stack:
        with on_core(*cores):
            start = publishing_brain(server, notes, folder, name, WORKERS)
            contender = await stack.enter_async_context(start)
        load = await stack.enter_async_context(load_of(contender, notes, clients))
        yield [Match(contender, load, clients)]


async def measure(matches: Sequence[Match], messages: int) -> list[Row]:
    """Send messages by all servers in turns."""
    rows = [Row(match.contender.name, match.clients) for match in matches]
    for match in matches:
        await match.examine(EXAMINED_MESSAGES)
    for number in range(-WARMING_MESSAGES, messages):
        for match, row in zip(matches, rows, strict=True):
            waited = family_time(match.contender.process_id).waited
            begun, receipt = await match.broadcast()
            waited = family_time(match.contender.process_id).waited - waited
            if number >= 0:
                row.add(begun, receipt, waited)
            await asyncio.sleep(PAUSE_SECONDS)
    return rows


def print_rows(rows: Sequence[Row]) -> None:
    clients = rows[0].clients
    aim = f"aim: {AIMS[clients]} ms" if clients in AIMS else ""
    print(
        f"{f'{clients:,} clients':<24}{'first to last p50':>20}{'p99':>9}"
        f"{'first after':>14}{'last after':>12}{'disturbed':>11}   {aim}".rstrip()
    )
    for row in rows:
        disturbed = sum(row.waited) / sum(row.last)
        print(
            f"  {row.name:<22}{percentile(row.under_way, 50):>20.1f}"
            f"{percentile(row.under_way, 99):>9.1f}{percentile(row.first, 50):>14.1f}"
            f"{percentile(row.last, 50):>12.1f}{disturbed:>11.0%}"
        )
    print()


async def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().partition("\n\n")[0])
    parser.add_argument("--clients", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--messages", type=int, default=100, help="of each server")
    parser.add_argument("--frame-bytes", type=int, default=200, help="at least 180")
    arguments = parser.parse_args()
    cores = chosen_cores()
    notes = Notes(arguments.frame_bytes)
    with tempfile.TemporaryDirectory() as folder, on_core(cores.clients):
        async with running_server(Path(folder)) as server:
            print(
                f"PostgreSQL {server.embedded.binaries.version}, Python"
                f" {platform.python_version()}, {os.cpu_count()} cores; {arguments.messages}"
                f" messages of {arguments.frame_bytes} bytes; milliseconds\n"
            )
            for clients in fitting(arguments.clients):
                rows = []
                for running in (running_alone, running_workers):
                    async with running(server, notes, clients, Path(folder), cores) as matches:
                        rows += await measure(matches, arguments.messages)
                print_rows(rows)


if __name__ == "__main__":
    asyncio.run(main())
