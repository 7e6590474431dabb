"""
Compare a node that waits for notifications with one that polls, at several rates of writes.

    python -m bench.pace [--seconds 2] [--repetitions 2] [--rates 50 100 ...]

This measurement gives the defaults of BRAIN_BUSY_FROM_RATE, BRAIN_CALM_BELOW_RATE and
BRAIN_BUSY_TICK_SECONDS. PostgreSQL flushes its commits. A Brain with one client runs in one of
several modes that it cannot leave: parked, where every transaction sends NOTIFY and the node reads
at each notification; or busy, where the node polls every 2, 3, 5 or 10 ms and no transaction sends
NOTIFY. pgbench updates one random task out of 10,000 per transaction with 8 connections, at each
rate and then as fast as it can. The modes take turns within a repetition. "!" marks a mode that the
node did leave.

The output shows for each rate and mode, over all repetitions:

- the latency from a clock that the UPDATE reads to the client's `recv()`, which includes the
  triggers and the commit;
- the processor time of the node and of all processes of the server, in ms per second.

How to choose the settings. At low rates a node should be parked: that is faster, because with
polling a change waits for half a tick, and cheaper, because a poll costs as much when it finds
nothing. BRAIN_BUSY_FROM_RATE is the rate above which this no longer holds: between the rate where
parked takes more processor time and the rate where parked has the larger p99 or no longer reaches
the wanted rate of writes. BRAIN_CALM_BELOW_RATE is so far below that an even load does not cross
both. BRAIN_BUSY_TICK_SECONDS is the tick beyond which p50 grows and hardly any processor time is
saved. "reads/s" counts the reads that found something. They follow the writes only while there is
one read per write, and an overloaded machine makes fewer of them; so Brain counts changes instead.
The last lines are the highest rates: for parked they show the cost of NOTIFY to writers, which wait
for each other.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from bench.node import Node, running_node
from bench.server import COUNTING, STAMPING, Server, running_server

RATES = (50, 100, 200, 400, 800, 1600, 3200)
WRITERS = 8
SETTLING_SECONDS = 0.3


class Mode(NamedTuple):
    name: str
    settings: Mapping[str, str]

    @property
    def is_parked(self) -> bool:
        return "tick" not in self.name


def parked() -> Mode:
    return Mode("parked", {"BRAIN_BUSY_FROM_RATE": "1e9", "BRAIN_CALM_BELOW_RATE": "1e9"})


def busy(milliseconds: int) -> Mode:
    # After one change the estimate of the rate takes minutes to fall below this.
    lowest = {"BRAIN_BUSY_FROM_RATE": "1e-300", "BRAIN_CALM_BELOW_RATE": "1e-300"}
    seconds = str(milliseconds / 1000)
    return Mode(f"tick {milliseconds} ms", {**lowest, "BRAIN_BUSY_TICK_SECONDS": seconds})


MODES = (parked(), busy(2), busy(3), busy(5), busy(10))


@dataclass
class Cell:
    """The measured values at one rate in one mode."""

    milliseconds: list[float] = field(default_factory=list)
    written: list[float] = field(default_factory=list)
    reads: list[float] = field(default_factory=list)
    """Ticks cut per second, one for each read that found something."""
    node: list[float] = field(default_factory=list)
    """Processor time in ms per second."""
    server: list[float] = field(default_factory=list)
    was_left: bool = False
    """True if the node was seen in the other mode."""


@asynccontextmanager
async def node_in(mode: Mode, server: Server, folder: Path) -> AsyncIterator[Node]:
    async with running_node(server, folder, mode.settings) as node:
        # The node turns busy only after a change.
        await server.admin.execute("UPDATE tasks SET progress = progress + 1 WHERE id = '1'")
        await node.receiver.until(1)
        await asyncio.sleep(0.2)
        yield node


async def measure(
    server: Server, node: Node, mode: Mode, *, rate: int, seconds: int, cell: Cell
) -> None:
    """Write at a rate for `seconds`, and add the measured values to the cell."""
    await server.clear()
    begun, ticks = time.time(), await newest_tick(server)
    node_spent, server_spent = node.cpu_seconds, server.cpu_seconds
    outcome = await server.write(STAMPING, writers=WRITERS, seconds=seconds, rate=rate)
    passed = time.time() - begun
    cell.node.append((node.cpu_seconds - node_spent) / passed * 1000)
    cell.server.append((server.cpu_seconds - server_spent) / passed * 1000)
    cell.reads.append((await newest_tick(server) - ticks) / passed)
    cell.written.append(outcome.rate)
    cell.was_left |= await server.has_parked_node() != mode.is_parked
    cell.milliseconds.extend(
        (receipt.at - receipt.progress) * 1000
        for receipt in await node.receiver.until_quiet(outcome.transactions)
        if receipt.progress > begun + SETTLING_SECONDS
    )


async def measure_highest(server: Server, node: Node, seconds: int, cell: Cell) -> None:
    await server.clear()
    outcome = await server.write(COUNTING, writers=WRITERS, seconds=seconds)
    cell.written.append(outcome.rate)
    await node.receiver.until_quiet(outcome.transactions)


async def newest_tick(server: Server) -> int:
    return int(await server.admin.fetchval("SELECT max(id) FROM brain.ticks"))


Results = dict[tuple[int, str], Cell]


async def repeat(server: Server, folder: Path, arguments: argparse.Namespace) -> Results:
    """Measure all rates in all modes; rate 0 means as fast as possible."""
    results = {(rate, mode.name): Cell() for rate in (*arguments.rates, 0) for mode in MODES}
    for _ in range(arguments.repetitions):
        for mode in MODES:
            async with node_in(mode, server, folder) as node:
                for rate in arguments.rates:
                    cell = results[rate, mode.name]
                    await measure(
                        server, node, mode, rate=rate, seconds=arguments.seconds, cell=cell
                    )
                await measure_highest(server, node, arguments.seconds, results[0, mode.name])
    return results


def line(rate: int, mode: Mode, cell: Cell) -> str:
    percentiles = statistics.quantiles(cell.milliseconds, n=100, method="inclusive")
    node, server, reads, written = (
        statistics.median(values) for values in (cell.node, cell.server, cell.reads, cell.written)
    )
    return (
        f"{rate:>8}  {mode.name + '!' * cell.was_left:<14}{written:>9.0f}{percentiles[49]:>9.2f}"
        f"{percentiles[98]:>9.2f}{reads:>9.0f}{node:>9.0f}{server:>9.0f}{node + server:>9.0f}"
    )


def print_results(results: Results, rates: Sequence[int]) -> None:
    print(
        f"{'writes/s':>8}  {'mode':<14}{'written':>9}{'p50 ms':>9}{'p99 ms':>9}{'reads/s':>9}"
        f"{'node':>9}{'server':>9}{'both':>9}   ms of processor time a second"
    )
    for rate in rates:
        for mode in MODES:
            print(line(rate, mode, results[rate, mode.name]))
        print()
    for mode in MODES:
        highest = statistics.median(results[0, mode.name].written)
        print(f"{'highest':>8}  {mode.name:<14}{highest:>9.0f}")


async def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().partition("\n\n")[0])
    parser.add_argument("--seconds", type=int, default=2, help="per rate")
    parser.add_argument("--repetitions", type=int, default=2)
    parser.add_argument("--rates", type=int, nargs="+", default=list(RATES))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        async with running_server(Path(folder)) as server:
            results = await repeat(server, Path(folder), arguments)
            print(f"PostgreSQL {server.embedded.binaries.version}, {os.cpu_count()} cores")
            print_results(results, arguments.rates)


if __name__ == "__main__":
    asyncio.run(main())
