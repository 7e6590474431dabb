"""
Measure what a Brain takes for its clients and for writes: the figures of docs/sizing.md.

    python -m bench.sizing [--clients 1000] [--rate 1000] [--seconds 10]

One Brain on one database, in several situations, one after the other: clients are of brain.v1, each
subscribed to one row of a table, or all to the table; pgbench updates a random one of these rows in
each transaction. For each situation:

    memory       private memory of Brain's process
    Brain        processor time of Brain, in percent of a core
    sessions     processor time of PostgreSQL's processes that serve Brain, likewise
    writers      and of those that serve pgbench, with Brain's triggers
    conns        connections of Brain to PostgreSQL
    log          bytes that the log grows for each write, with its indexes
    WAL          bytes of WAL for each write
    sent         messages a second to all clients together

The server has one core to itself; PostgreSQL, pgbench and clients share the other one.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from bench.brain import brain_for_many
from bench.dialects import Dialect, V1Dialect
from bench.load import by_age, running_load
from bench.processes import cpu_seconds
from bench.row_topics import STAMPING
from bench.server import Server, running_server
from bench.usage import chosen_cores, family_time, on_core, private_bytes
from tests.end_to_end.brain import RunningBrain

WRITERS = 8
# Before each measurement, until what was sent has arrived and what was loaded once is loaded.
SETTLING_SECONDS = 2.0
LOG_BYTES = """
SELECT sum(pg_total_relation_size(oid))::bigint FROM pg_class
 WHERE relnamespace = 'brain'::regnamespace AND relkind = 'r' AND relname LIKE 'events%'
"""
WAL_BYTES = "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint"
SESSIONS = """
SELECT pid, application_name = 'pgbench' AS writes FROM pg_stat_activity
 WHERE application_name IN ('brain', 'pgbench')
"""


@dataclass(frozen=True)
class Situation:
    name: str
    clients: int
    rate: int
    """Writes a second; 0 for none."""
    has_row_topics: bool = True

    @property
    def dialects(self) -> list[Dialect]:
        numbers = range(1, self.clients + 1)
        keys = [str(number) if self.has_row_topics else None for number in numbers]
        return [V1Dialect("/ws/v1", "tasks", key) for key in keys]


class Usage(NamedTuple):
    """So far."""

    brain_seconds: float
    session_seconds: float
    writer_seconds: float
    log_bytes: int
    wal_bytes: int


class Figures(NamedTuple):
    memory_bytes: int
    connections: int
    rate: float
    used: Usage
    """In the time of the measurement."""
    seconds: float
    messages: int


def used_between(before: Usage, after: Usage) -> Usage:
    return Usage(
        after.brain_seconds - before.brain_seconds,
        after.session_seconds - before.session_seconds,
        after.writer_seconds - before.writer_seconds,
        after.log_bytes - before.log_bytes,
        after.wal_bytes - before.wal_bytes,
    )


async def usage(server: Server, brain: RunningBrain) -> Usage:
    sessions = await server.admin.fetch(SESSIONS)
    writers = sum(cpu_seconds(session["pid"]) for session in sessions if session["writes"])
    others = sum(cpu_seconds(session["pid"]) for session in sessions if not session["writes"])
    return Usage(
        family_time(brain.process.pid).spent,
        others,
        writers,
        await server.admin.fetchval(LOG_BYTES),
        await server.admin.fetchval(WAL_BYTES),
    )


async def measure(
    server: Server, brain: RunningBrain, situation: Situation, seconds: int
) -> Figures:
    async with AsyncExitStack() as stack:
        load = None
        if situation.clients:
            running = running_load(brain.port, situation.dialects, *by_age(start='"row":'))
            load = await stack.enter_async_context(running)
        statement = " ".join(STAMPING.format(clients=max(situation.clients, 1000)).split())
        writing = None
        if situation.rate:
            # Longer than the measurement: the sessions of pgbench have to be there at its end.
            span = seconds + round(3 * SETTLING_SECONDS)
            writing = asyncio.create_task(
                server.write(statement, writers=WRITERS, seconds=span, rate=situation.rate)
            )
        await asyncio.sleep(SETTLING_SECONDS)
        if load:
            await load.ages()
        before = await usage(server, brain)
        await asyncio.sleep(seconds)
        after = await usage(server, brain)
        messages = len(await load.ages()) if load else 0
        connections = await server.admin.fetchval(
            f"SELECT count(*) FROM ({SESSIONS}) s WHERE NOT writes"
        )
        outcome = await writing if writing else None
        return Figures(
            private_bytes(brain.process.pid),
            connections,
            outcome.rate if outcome else 0,
            used_between(before, after),
            seconds,
            messages,
        )


def print_figures(situation: Situation, figures: Figures) -> None:
    used, seconds = figures.used, figures.seconds
    writes = figures.rate * seconds
    each = [f"{size / writes:>8,.0f}" if writes else " " * 8 for size in used[3:]]
    print(
        f"{situation.name:<44}{figures.memory_bytes / 2**20:>7.0f}M"
        f"{used.brain_seconds / seconds:>7.0%}{used.session_seconds / seconds:>10.0%}"
        f"{used.writer_seconds / seconds:>9.0%}{figures.connections:>7}{figures.rate:>10,.0f}"
        f"{''.join(each)}{figures.messages / seconds:>10,.0f}"
    )


def situations(clients: int, rate: int) -> list[Situation]:
    return [
        Situation("no clients", 0, 0),
        Situation(f"{clients:,} clients", clients, 0),
        Situation(f"no clients, {rate:,} writes/s", 0, rate),
        Situation(f"{clients:,} clients, a row each, {rate // 10:,}/s", clients, rate // 10),
        Situation(f"{clients:,} clients, a row each, {rate:,}/s", clients, rate),
        Situation(f"{clients:,} clients, one table, {rate // 10:,}/s", clients, rate // 10, False),
    ]


async def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().partition("\n\n")[0])
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--rate", type=int, default=1000, help="writes per second")
    parser.add_argument("--seconds", type=int, default=10)
    arguments = parser.parse_args()
    cores = chosen_cores()
    with tempfile.TemporaryDirectory() as folder, on_core(cores.clients):
        async with running_server(Path(folder)) as server, AsyncExitStack() as stack:
            with on_core(cores.server):
                running = brain_for_many(server.url, Path(folder))
                brain = await stack.enter_async_context(running)
            version = server.embedded.binaries.version
            print(
                f"PostgreSQL {version}, Python {platform.python_version()}, {os.cpu_count()} cores"
            )
            print(f"{'':<44}{'memory':>8}{'Brain':>7}{'sessions':>10}{'writers':>9}", end="")
            print(f"{'conns':>7}{'writes/s':>10}{'log':>8}{'WAL':>8}{'sent/s':>10}")
            for situation in situations(arguments.clients, arguments.rate):
                figures = await measure(server, brain, situation, arguments.seconds)
                print_figures(situation, figures)


if __name__ == "__main__":
    asyncio.run(main())
