"""
Measure a reconnect storm: Brain is killed, and thousands of clients reconnect at once.

    python -m bench.storm [--clients 5000] [--rate 2] [--seconds 10] [--jitter-seconds 0.5]

Clients subscribe to a channel with cursors while messages are published to it at an even rate.
Brain is killed (SIGKILL) and started again on the same port at once. Every client reconnects with
its last cursor as soon as it can, after a random time up to the jitter before each attempt.
Publishing continues meanwhile. The output shows, with times counted from the kill:

- when Brain was ready again, when the last client received the greeting, and when all clients were
  live: each had received the message that was the newest one at that greeting;
- lost and doubled messages, both of which must be 0: messages are numbered;
- the peak memory of the second Brain, and the memory of the first one with the same clients while
  idle;
- the queries of the second Brain until all clients were live, but for SECONDS at least, as
  pg_stat_statements counts them under a role that only Brain uses; and how many of these exceed the
  steady state of a Brain that reads the log, by the rate of queries before the kill;
- the processor time of the second Brain until then, and the time in which it was ready to run while
  another process used its core, which makes all times longer.

A run with a tenth of the clients comes first: the last column shows what grows with their number.
The server has one core to itself; the clients, PostgreSQL and this process share the other one.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import platform
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import asyncpg

from bench.brain import brain_for_many
from bench.crowd import Report, running_returners
from bench.descriptors import fitting
from bench.processes import peak_resident_bytes, resident_bytes
from bench.publisher import CHANNEL, running_publisher
from bench.usage import Cores, ProcessorTime, chosen_cores, family_time, on_core
from brain.database.migrations import migrate
from brain.embedded.server import ROLE, EmbeddedServer, serve_embedded
from tests.schemas import every_schema

QUIET_SECONDS = 3.0
SETTLING_SECONDS = 1.0
FOLLOWING_SECONDS = 4.0

# Below the ephemeral ports: a client with such a port could connect to itself.
PORTS = range(20_000, 30_000)

# Other roles than that of Brain, so that its queries can be counted apart.
ROLES = """
CREATE EXTENSION pg_stat_statements;
CREATE ROLE publisher LOGIN SUPERUSER;
CREATE ROLE observer LOGIN SUPERUSER;
"""
QUERIES = """
SELECT coalesce(sum(calls), 0) FROM pg_stat_statements WHERE userid = $1::regrole AND toplevel
"""


class Outcome(NamedTuple):
    """The result of one storm; times in seconds after the kill."""

    clients: int
    report: Report
    ready: float
    welcomed: float
    live: float
    published: int
    """Messages published in the whole run."""
    idle_bytes: int
    most_bytes: int
    counted: float
    """How long queries and processor time were counted."""
    queries: int
    extra_queries: float
    """Queries above the steady state before the kill."""
    time: ProcessorTime
    """Processor time of the second Brain."""

    @property
    def clients_share(self) -> float:
        """The share of the clients' core that reconnecting used."""
        report = self.report
        return report.cpu_seconds / (report.greeted_last_at - report.lost_first_at)


@dataclass(frozen=True)
class Place:
    """The PostgreSQL, the cores and the options of all storms."""

    server: EmbeddedServer
    observer: asyncpg.Connection
    folder: Path
    cores: Cores
    rate: float
    seconds: float
    jitter_seconds: float

    async def storm(self, clients: int) -> Outcome:
        """Connect the clients, kill Brain, start it again, and return the measured values."""
        port = port_for_servers()
        async with AsyncExitStack() as stack:
            first = await self._brain(stack, port)
            crowd = await stack.enter_async_context(
                running_returners(port, CHANNEL, clients, self.jitter_seconds)
            )
            await asyncio.sleep(QUIET_SECONDS)
            idle_bytes = resident_bytes(first.pid)
            async with running_publisher(self.server.url, self.rate) as publisher:
                following = await self._queries_following()
                killed = time.monotonic()
                first.kill()
                await first.wait()
                second = await self._brain(stack, port)
                ready = time.monotonic()
                await asyncio.sleep(killed + self.seconds - ready)
                await crowd.live()
                counted = time.monotonic() - killed
                queries = await self._queries()
                processor_time = family_time(second.pid)
            report = await crowd.finish(publisher.last)
            newest = publisher.newest(report.greeted_last_at)
            # All may have received this message before the kill.
            live_at = max(report.delivered_at.get(newest, math.nan), report.greeted_last_at)
            return Outcome(
                clients=clients,
                report=report,
                ready=ready - killed,
                welcomed=report.greeted_last_at - killed,
                live=live_at - killed,
                published=publisher.last,
                idle_bytes=idle_bytes,
                most_bytes=peak_resident_bytes(second.pid),
                counted=counted,
                queries=queries,
                extra_queries=queries - following * counted,
                time=processor_time,
            )

    async def _queries_following(self) -> float:
        """Return Brain's queries per second in the steady state, then reset the counters."""
        await asyncio.sleep(SETTLING_SECONDS)
        await self.observer.execute("SELECT pg_stat_statements_reset()")
        await asyncio.sleep(FOLLOWING_SECONDS)
        following = await self._queries() / FOLLOWING_SECONDS
        await self.observer.execute("SELECT pg_stat_statements_reset()")
        return following

    async def _brain(self, stack: AsyncExitStack, port: int) -> asyncio.subprocess.Process:
        with on_core(self.cores.server):
            brain = await stack.enter_async_context(
                brain_for_many(self.server.url, self.folder, port)
            )
        return brain.process

    async def _queries(self) -> int:
        return int(await self.observer.fetchval(QUERIES, ROLE))


@asynccontextmanager
async def running_place(arguments: argparse.Namespace) -> AsyncIterator[Place]:
    """Run a PostgreSQL that counts queries until the context ends."""
    cores = chosen_cores()
    settings = {"shared_preload_libraries": "pg_stat_statements"}
    with (
        tempfile.TemporaryDirectory() as folder,
        on_core(cores.clients),
        serve_embedded(Path(folder) / "database", superuser=True, settings=settings) as server,
    ):
        await migrate(server.url, every_schema())
        admin = await asyncpg.connect(server.url)
        await admin.execute(ROLES)
        await admin.close()
        observer = await asyncpg.connect(server.url, user="observer")
        yield Place(
            server,
            observer,
            Path(folder),
            cores,
            arguments.rate,
            arguments.seconds,
            arguments.jitter_seconds,
        )
        await observer.close()


def port_for_servers() -> int:
    """Return a free port that the system gives to no client."""
    for port in PORTS:
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise OSError("no port is free")


# The lines of the output: label, value, format.
LINES: tuple[tuple[str, Callable[[Outcome], float], str], ...] = (
    ("Brain was ready again after", lambda one: one.ready, "{:.2f} s"),
    ("the last client was welcomed after", lambda one: one.welcomed, "{:.2f} s"),
    ("all were live again after", lambda one: one.live, "{:.2f} s"),
    ("messages published", lambda one: one.published, "{:,.0f}"),
    ("messages lost, all clients together", lambda one: one.report.lost, "{:,.0f}"),
    ("messages duplicated", lambda one: one.report.doubled, "{:,.0f}"),
    ("resets", lambda one: one.report.resets, "{:,.0f}"),
    ("attempts to connect", lambda one: one.report.attempts, "{:,.0f}"),
    ("of which were welcomed", lambda one: one.report.greeted, "{:,.0f}"),
    ("memory while idle, MiB", lambda one: one.idle_bytes / 2**20, "{:,.0f}"),
    ("most memory of the second Brain, MiB", lambda one: one.most_bytes / 2**20, "{:,.0f}"),
    ("most : idle", lambda one: one.most_bytes / one.idle_bytes, "{:.2f} x"),
    ("time in which queries were counted", lambda one: one.counted, "{:.2f} s"),
    ("queries of the database", lambda one: one.queries, "{:,.0f}"),
    ("beyond those that following takes", lambda one: one.extra_queries, "{:,.0f}"),
    ("processor time of the second Brain", lambda one: one.time.spent, "{:.2f} s"),
    ("waited for its core", lambda one: one.time.waited, "{:.2f} s"),
    ("of the clients' core coming back took", lambda one: one.clients_share, "{:.0%}"),
)


def print_outcomes(fewer: Outcome, more: Outcome) -> None:
    columns = (f"{fewer.clients:,} clients", f"{more.clients:,} clients", "ratio")
    print(f"{'':<42}{''.join(f'{column:>16}' for column in columns)}")
    for name, of, form in LINES:
        ratio = f"{of(more) / of(fewer):.2f} x" if of(fewer) else ""
        print(f"{name:<42}{form.format(of(fewer)):>16}{form.format(of(more)):>16}{ratio:>16}")
    for outcome in (fewer, more):
        print(f"\nreasons why {outcome.clients:,} clients had to reconnect:")
        for reason, times in sorted(outcome.report.closed.items(), key=lambda item: -item[1]):
            print(f"  {times:>8,} x {reason}")


async def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().partition("\n\n")[0])
    parser.add_argument("--clients", type=int, default=5000)
    parser.add_argument("--rate", type=float, default=2, help="messages a second")
    parser.add_argument("--seconds", type=float, default=10, help="at least, after the kill")
    parser.add_argument("--jitter-seconds", type=float, default=0.5, help="before an attempt")
    arguments = parser.parse_args()
    (clients,) = fitting([arguments.clients])
    async with running_place(arguments) as place:
        print(
            f"PostgreSQL {place.server.binaries.version}, Python {platform.python_version()},"
            f" {os.cpu_count()} cores; {arguments.rate:g} messages/s,"
            f" jitter {arguments.jitter_seconds:g} s\n"
        )
        fewer, more = [await place.storm(number) for number in (max(clients // 10, 1), clients)]
    print_outcomes(fewer, more)
    return 1 if any(one.report.lost or one.report.doubled for one in (fewer, more)) else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
