"""
Measure the time from COMMIT of a change until a client receives it, against UPDATE and NOTIFY.

    python -m bench.latency [--changes 900] [--seconds 4] [--repetitions 3] [--bulk 100000]

One run uses one PostgreSQL that flushes its commits to disk. Each repetition measures:

- idle, in turns with a pause in between. The floor, 1 x in the output: an UPDATE and a NOTIFY in
  one transaction, flushed to disk, to a listener on PostgreSQL. The same to a WebSocket client of
  `bench.peer`, the floor for a server in a separate process. An UPDATE of a task, sent to a client
  of a Brain in a separate process. A NOTIFY without a change: its transaction writes no WAL and
  waits for no flush, so it is quicker than anything that stores a change. The clock starts when
  COMMIT is sent and stops in the listener's callback, or when the client's `recv()` returns. The
  floor updates a copy of `tasks` without Brain's triggers. Its listener is a connection of this
  process: one in a separate process takes as much longer as that process takes to wake up.
- under load: pgbench updates one random task out of 10,000 per transaction, at 500 a second with 8
  connections and at 5,000 with 16; and at 500 beside another transaction that has changed a task
  and stays open for 2 s, one after the other. pgbench does not report when it commits, so the
  statement writes `clock_timestamp()` into the row: this clock starts in the statement, before the
  triggers and before COMMIT, and shows a little more than the others. The first half second of a
  load is left out: pgbench connects, and Brain turns from parked to busy.

The client is this process. Under load it does nothing else, and it extracts from a message only the
number that it compares. The output also shows the rate that pgbench reached, and how much of a core
Brain and the client used: far below 100%, neither of them is the bottleneck.

At the end one transaction changes all tasks, three times. The output shows when the last message
arrived after COMMIT, and the memory of the Brain process before and at its peak from then on. The
first time may fill the ring.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from bench.client import connected_receiver
from bench.idle import PLAIN_TABLE, IdleChanges, Measure, idle_changes, measure_in_turns
from bench.node import Node, running_node
from bench.peer import running_peer
from bench.percentile import percentile
from bench.server import STAMPING, WRITTEN_ROWS, Server, running_server

SETTLING_SECONDS = 0.5
# After a load, until Brain is parked again.
CALMING_SECONDS = 1.5


@dataclass(frozen=True, eq=False)
class Row:
    """One line of the output."""

    name: str
    aim: str
    writers: int = 0
    rate: int = 0
    """Writes per second; 0 while idle."""
    beside_open: bool = False
    """True if another transaction stays open meanwhile."""
    milliseconds: list[float] = field(default_factory=list)
    written: list[float] = field(default_factory=list)
    client_shares: list[float] = field(default_factory=list)
    """The share of a core that the client used."""
    node_shares: list[float] = field(default_factory=list)
    """The share of a core that the Brain process used."""


def idle_rows(changes: IdleChanges) -> dict[Row, Measure]:
    return {
        Row("UPDATE + NOTIFY to listener", "the floor"): changes.to_listener,
        Row("  to WebSocket client", "the floor of a server"): changes.to_peer,
        Row("Brain, idle", "p50 2.5 x the floor, then 2.0 x"): changes.to_brain,
        Row("NOTIFY without a change", "not flushed"): changes.without_change,
    }


def loaded_rows() -> tuple[Row, ...]:
    return (
        Row("Brain, 500 writes/s", "", 8, 500),
        Row("  beside an open transaction", "p99 as without it", 8, 500, True),
        Row("Brain, 5,000 writes/s", "p50 3 ms, p99 10 ms", 16, 5000),
    )


async def measure_loaded(server: Server, node: Node, row: Row, seconds: int) -> None:
    """Run pgbench, and add the measured values to the row."""
    begun = time.time()
    node_spent, client_spent = node.cpu_seconds, node.client_cpu_seconds
    async with server.open_transactions() if row.beside_open else nullcontext():
        outcome = await server.write(STAMPING, writers=row.writers, seconds=seconds, rate=row.rate)
        passed = time.time() - begun
        row.node_shares.append((node.cpu_seconds - node_spent) / passed)
        row.client_shares.append((node.client_cpu_seconds - client_spent) / passed)
        receipts = await node.receiver.until_quiet(outcome.transactions)
    row.written.append(outcome.rate)
    row.milliseconds.extend(
        (receipt.at - receipt.progress) * 1000
        for receipt in receipts
        if receipt.progress > begun + SETTLING_SECONDS
    )


# The first one may fill the ring, which has 64 MiB.
BULKS = 3


async def print_bulk(server: Server, node: Node, tasks: int) -> None:
    node.forget_peak()
    before, client_spent = node.resident_bytes, node.client_cpu_seconds
    await server.admin.execute("BEGIN")
    await server.admin.execute("UPDATE tasks SET progress = progress + 1")
    node_spent, sent = node.cpu_seconds, time.time()
    await server.admin.execute("COMMIT")
    receipts = await node.receiver.until(tasks)
    first, last = receipts[0].at - sent, receipts[-1].at - sent
    print(
        f"\nan UPDATE of {tasks:,} tasks in one transaction: first message after"
        f" {first * 1000:.0f} ms, last after {last:.2f} s, {tasks / last:,.0f} messages/s"
        f" (Brain {(node.cpu_seconds - node_spent) / last:.0%} of a core,"
        f" client {(node.client_cpu_seconds - client_spent) / last:.0%})"
    )
    peak = node.peak_resident_bytes
    print(
        f"memory of the Brain process: {before / 2**20:.0f} MiB before,"
        f" {(peak - before) / 2**20:.0f} MiB more at its peak; aim: at most 16 MiB more where the"
        " ring is full"
    )


def print_rows(rows: Sequence[Row]) -> None:
    """Print the rows; the first one is the floor."""
    print(
        f"{'milliseconds':<30}{'p50':>18}{'p99':>18}"
        f"{'writes/s':>10}{'Brain':>10}{'client':>10}   aim"
    )
    for row in rows:
        print(line(row, rows[0].milliseconds))


def line(row: Row, floor: Sequence[float]) -> str:
    cells = [
        f"{percentile(row.milliseconds, percent):8.2f}"
        f" ({percentile(row.milliseconds, percent) / percentile(floor, percent):.1f} x)"
        for percent in (50, 99)
    ]
    load = "".join(
        f"{statistics.median(values):>{form}}" if values else " " * 10
        for values, form in (
            (row.written, "10,.0f"),
            (row.node_shares, "10.0%"),
            (row.client_shares, "10.0%"),
        )
    )
    return f"{row.name:<30}{cells[0]:>18}{cells[1]:>18}{load}   {row.aim}"


async def measure(server: Server, folder: Path, arguments: argparse.Namespace) -> None:
    """Run all measurements and print the results."""
    loaded = loaded_rows()
    async with (
        running_peer(server.url) as peer_port,
        connected_receiver(peer_port, is_greeted=False) as peer,
        running_node(server, folder) as node,
        idle_changes(server, peer, node.receiver) as changes,
    ):
        idle = idle_rows(changes)
        each = arguments.changes // arguments.repetitions
        kinds = [(measured, row.milliseconds) for row, measured in idle.items()]
        for repetition in range(arguments.repetitions):
            await asyncio.sleep(CALMING_SECONDS)
            await measure_in_turns(kinds, 1 + repetition * each, each)
            for row in loaded:
                await server.clear()
                await measure_loaded(server, node, row, arguments.seconds)
        print_rows([*idle, *loaded])
        await server.clear()
        for _ in range(BULKS):
            await print_bulk(server, node, arguments.bulk)


async def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--changes", type=int, default=900, help="per idle row, in all")
    parser.add_argument("--seconds", type=int, default=4, help="of each load in a repetition")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--bulk", type=int, default=100_000, help="tasks in one transaction")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        async with running_server(Path(folder), max(arguments.bulk, WRITTEN_ROWS + 1)) as server:
            print(
                f"PostgreSQL {server.embedded.binaries.version}, Python"
                f" {platform.python_version()}, {os.cpu_count()} cores"
            )
            await server.admin.execute(PLAIN_TABLE)
            await measure(server, Path(folder), arguments)


if __name__ == "__main__":
    asyncio.run(main())
