"""
Measure how soon 1,000 clients of brain.v1 get changes that each concern one of them, or all.

    python -m bench.row_topics [--clients 1000] [--rate 500] [--seconds 4] [--repetitions 3]

pgbench updates one task out of as many as there are clients per transaction. Either each client is
subscribed to one of these tasks, so that a change goes to one client; or all are to the channel, so
that it goes to all. Both run one after the other in each repetition, on one Brain. The clock starts
in the statement, and stops in the client (`load.c`) when it has read the message: every message of
every client counts. The server has one core to itself; clients, pgbench and PostgreSQL share the
other one. "disturbed" is the share of the time in which the server was ready to run, but had to
wait for its core; "clients" is what the clients used of theirs.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import statistics
import tempfile
from array import array
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from bench.brain import brain_for_many
from bench.dialects import Dialect, V1Dialect
from bench.load import Load, by_age, running_load
from bench.percentile import percentile
from bench.server import PATIENCE_SECONDS, Server, running_server
from bench.usage import chosen_cores, family_time, on_core

WRITERS = 8
# Until the changes of the first second have arrived.
SETTLING_SECONDS = 1.0

STAMPING = """
UPDATE tasks SET progress = date_part('epoch', clock_timestamp())
 WHERE id = (1 + :id::integer % {clients})::text
"""


@dataclass
class Row:
    name: str
    aim: str
    has_row_topics: bool
    milliseconds: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    server_shares: list[float] = field(default_factory=list)
    disturbed_shares: list[float] = field(default_factory=list)
    """Of the time, in which the server was ready to run, but had to wait for its core."""
    client_shares: list[float] = field(default_factory=list)

    def dialects(self, clients: int) -> list[Dialect]:
        """Return what each client speaks; client n has the row n, or all have the channel."""
        keys = [str(number) if self.has_row_topics else None for number in range(1, clients + 1)]
        return [V1Dialect("/ws/v1", "tasks", key) for key in keys]


async def all_ages(load: Load, count: int) -> array[float]:
    """Wait for `count` messages, and return the ages of them all."""
    ages = await load.ages()
    async with asyncio.timeout(PATIENCE_SECONDS):
        while len(ages) < count:
            await asyncio.sleep(0.2)
            ages += await load.ages()
    assert len(ages) == count, f"{len(ages)} messages instead of {count}"
    return ages


async def measure(
    server: Server, port: int, process_id: int, row: Row, arguments: argparse.Namespace
) -> None:
    dialects = row.dialects(arguments.clients)
    async with running_load(port, dialects, *by_age(start='"row":')) as load:
        statement = " ".join(STAMPING.format(clients=arguments.clients).split())
        # pgbench connects, and Brain turns from parked to busy.
        await server.write(statement, writers=WRITERS, seconds=1, rate=arguments.rate)
        await asyncio.sleep(SETTLING_SECONDS)
        await load.ages()
        begun, clients_begun = family_time(process_id), family_time(load.process_id)
        outcome = await server.write(
            statement, writers=WRITERS, seconds=arguments.seconds, rate=arguments.rate
        )
        each = 1 if row.has_row_topics else arguments.clients
        row.milliseconds.extend(await all_ages(load, outcome.transactions * each))
        ended, clients_ended = family_time(process_id), family_time(load.process_id)
        row.server_shares.append((ended.spent - begun.spent) / arguments.seconds)
        row.disturbed_shares.append((ended.waited - begun.waited) / arguments.seconds)
        row.client_shares.append((clients_ended.spent - clients_begun.spent) / arguments.seconds)
        row.rates.append(outcome.rate)


def print_rows(rows: list[Row], clients: int) -> None:
    print(f"{f'{clients:,} clients of brain.v1':<32}{'p50 ms':>10}{'p99 ms':>10}", end="")
    print(f"{'writes/s':>10}{'Brain':>8}{'disturbed':>11}{'clients':>9}   aim")
    for row in rows:
        fifty, most = (percentile(row.milliseconds, percent) for percent in (50, 99))
        print(
            f"  {row.name:<30}{fifty:>10.2f}{most:>10.2f}"
            f"{statistics.median(row.rates):>10,.0f}{statistics.median(row.server_shares):>8.0%}"
            f"{statistics.median(row.disturbed_shares):>11.0%}"
            f"{statistics.median(row.client_shares):>9.0%}   {row.aim}".rstrip()
        )


async def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().partition("\n\n")[0])
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--rate", type=int, default=500, help="writes per second")
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--repetitions", type=int, default=3)
    arguments = parser.parse_args()
    rows = [
        Row("a row topic each", "", has_row_topics=True),
        Row("one shared channel", "p50 6 ms, p99 15 ms", has_row_topics=False),
    ]
    cores = chosen_cores()
    with tempfile.TemporaryDirectory() as folder, on_core(cores.clients):
        async with running_server(Path(folder)) as server:
            async with AsyncExitStack() as stack:
                with on_core(cores.server):
                    running = brain_for_many(server.url, Path(folder))
                    brain = await stack.enter_async_context(running)
                for _ in range(arguments.repetitions):
                    for row in rows:
                        await measure(server, brain.port, brain.process.pid, row, arguments)
            version = server.embedded.binaries.version
    print(f"PostgreSQL {version}, Python {platform.python_version()}, {os.cpu_count()} cores")
    print_rows(rows, arguments.clients)


if __name__ == "__main__":
    asyncio.run(main())
