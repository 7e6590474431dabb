"""
Measure the time from COMMIT of a change until a client receives it, against bare LISTEN/NOTIFY.

    python -m bench.latency [--changes 900] [--seconds 4] [--repetitions 3] [--bulk 100000]

One run uses one PostgreSQL that flushes its commits to disk. Each repetition measures:

- idle, in turns with a pause in between: bare LISTEN/NOTIFY in this process, the lower limit for
  anything that relies on PostgreSQL notifications; `pg_notify` to a WebSocket client of
  `bench.peer`, the lower limit for a server in a separate process; and an UPDATE of a task, sent to
  a client of a Brain in a separate process. The clock starts when COMMIT is sent and stops in the
  listener's callback, or when the client's `recv()` returns.
- under load: pgbench updates one random task out of 10,000 per transaction, at 500 a second with 8
  connections and at 5,000 with 16; and at 500 beside another transaction that has changed a task
  and stays open for 2 s, one after the other. pgbench does not report when it commits, so the
  statement writes `clock_timestamp()` into the row: this clock starts in the statement, before the
  triggers and before COMMIT, and shows a little more than the others. The first half second of a
  load is left out: pgbench connects, and Brain turns from parked to busy.

The client is this process. Under load it does nothing else, and it extracts from a message only the
number that it compares. The output also shows the rate that pgbench reached, and how much of a core
Brain and the client used: far below 100%, neither of them is the bottleneck.

At the end one transaction changes all tasks. The output shows when the last message arrived after
COMMIT, and the memory of the Brain process before and at its peak, which its ring bounds.
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

import asyncpg

from bench.client import Receiver, connected_receiver
from bench.node import Node, running_node
from bench.peer import CHANNEL, running_peer
from bench.server import STAMPING, WRITTEN_ROWS, Server, running_server

SETTLING_SECONDS = 0.5
# After a load, until Brain is parked again.
CALMING_SECONDS = 1.5

# As long as the message that Brain sends for a task.
PAYLOAD = (
    '{"type":"run_update","data":{"id":"1","status":"queued","progress":%d,"task_id":"1",'
    '"agent":"dev","started_at":null,"completed_at":null,"error":null},'
    '"timestamp":"2026-02-06T01:30:00.000Z"}'
)


@dataclass(frozen=True)
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


def idle_rows() -> tuple[Row, Row, Row]:
    return (
        Row("LISTEN/NOTIFY", "the floor"),
        Row("NOTIFY to WebSocket client", "the floor of a server"),
        Row("Brain, idle", "p50 1.5 x the floor"),
    )


def loaded_rows() -> tuple[Row, ...]:
    return (
        Row("Brain, 500 writes/s", "", 8, 500),
        Row("  beside an open transaction", "p99 as without it", 8, 500, True),
        Row("Brain, 5,000 writes/s", "p50 6 ms, p99 25 ms", 16, 5000),
    )


async def measure_idle(
    server: Server, receivers: tuple[Receiver, Receiver], rows: tuple[Row, Row, Row], changes: int
) -> None:
    """Measure the three rows in turns; make each change after the previous one was received."""
    writer, listener = await asyncpg.connect(server.url), await asyncpg.connect(server.url)
    received: asyncio.Queue[float] = asyncio.Queue()
    await listener.add_listener("floor", lambda *_: received.put_nowait(time.time()))
    for number in range(1, changes + 1):
        sent = await committed(writer, "SELECT pg_notify('floor', $1)", str(number))
        rows[0].milliseconds.append((await received.get() - sent) * 1000)
        statements = (
            (f"SELECT pg_notify('{CHANNEL}', $1)", PAYLOAD % number),
            ("UPDATE tasks SET progress = $1 WHERE id = '1'", number),
        )
        for row, receiver, (query, argument) in zip(rows[1:], receivers, statements, strict=True):
            await asyncio.sleep(0.01)
            sent = await committed(writer, query, argument)
            (receipt,) = await receiver.until(1)
            assert receipt.progress == number
            row.milliseconds.append((receipt.at - sent) * 1000)
        await asyncio.sleep(0.01)
    await listener.close()
    await writer.close()


async def committed(writer: asyncpg.Connection, query: str, argument: object) -> float:
    """Run a query in a transaction; return the time at which COMMIT was sent."""
    await writer.execute("BEGIN")
    await writer.execute(query, argument)
    sent = time.time()
    await writer.execute("COMMIT")
    return sent


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


async def print_bulk(server: Server, node: Node, tasks: int) -> None:
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
    print(
        f"memory of the Brain process: {before / 2**20:.0f} MiB before,"
        f" {node.peak_resident_bytes / 2**20:.0f} MiB at its peak;"
        " aim: bounded by the ring of 64 MiB, whatever the size of the transaction"
    )


def percentile(values: Sequence[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


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
    idle, loaded = idle_rows(), loaded_rows()
    async with (
        running_peer(server.url) as peer_port,
        connected_receiver(peer_port, is_greeted=False) as peer,
        running_node(server, folder) as node,
    ):
        for _ in range(arguments.repetitions):
            await asyncio.sleep(CALMING_SECONDS)
            changes = arguments.changes // arguments.repetitions
            await measure_idle(server, (peer, node.receiver), idle, changes)
            for row in loaded:
                await server.clear()
                await measure_loaded(server, node, row, arguments.seconds)
        print(
            f"{'milliseconds':<30}{'p50':>18}{'p99':>18}"
            f"{'writes/s':>10}{'Brain':>10}{'client':>10}   aim"
        )
        for row in (*idle, *loaded):
            print(line(row, idle[0].milliseconds))
        await server.clear()
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
            await measure(server, Path(folder), arguments)


if __name__ == "__main__":
    asyncio.run(main())
