"""
Compare Brain with other servers that push changes of PostgreSQL to WebSocket clients.

    python -m bench.peers --peer eventserv=127.0.0.1:7700 --peer centrifugo=127.0.0.1:8000 ...

This starts no peer. It runs a PostgreSQL that flushes its commits, prints its address, and waits
until each peer, which has to be started with that address, accepts connections. A kind of peer is
one of these (`bench.adapters`):

- `bare`: any server that listens to the channel `changes` and forwards the payloads of NOTIFY to
  clients of `/ws`, such as `python -m bench.peer URL PORT`;
- `eventserv`: pg_eventserv;
- `centrifugo`: Centrifugo that reads an outbox table, and `centrifugo_stream`: Centrifugo with
  streams in PostgreSQL; `docs/measurements.md` has their configurations.

Each has a table of its own, a copy of `tasks` with a trigger that hands the changed row to the
peer: the columns that Brain sends. Brain watches `tasks` itself, and its clients speak brain.v1.
For all of them pgbench runs the same statement, which updates one random row out of 10,000 and
stores the time of the clock in it; the clients (`load.c`) compare that with the time at which they
have read the message. So the time includes the triggers, the commit and its flush. All messages of
all clients count. Peers take turns within a repetition. No process is bound to a core.

The output shows p50/p99 in milliseconds, each the median of the repetitions. `n/s`: the writers did
not reach the rate, but only this. `behind`: the peer had not delivered everything 20 s after the
last write, and delivered so many a second; `lost`: the share that it never delivered. A peer that
is behind is not measured at higher rates.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import statistics
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from bench.adapters import ADAPTERS, BRAIN, Adapter
from bench.brain import brain_for_many
from bench.load import Load, alike, by_age, running_load
from bench.percentile import percentile
from bench.received import drained
from bench.server import STAMPING, Server, running_server

STARTING_SECONDS = 600.0

# At lower ones the random pauses of pgbench alone miss the rate by a tenth.
EVEN_RATE = 100
# From this rate on there are more writers.
FAST_RATE = 1000


@dataclass(frozen=True)
class Peer:
    name: str
    kind: str
    host: str
    port: int
    adapter: Adapter

    @property
    def statement(self) -> str:
        """Return what writers run."""
        return STAMPING.replace("UPDATE tasks", f"UPDATE {self.adapter.table_for(self.kind)}")


class Measured(NamedTuple):
    fifty: float
    """Milliseconds."""
    ninety_nine: float
    rate: float
    """Writes per second."""
    lost_share: float
    behind: float
    """Deliveries per second of a peer that was not done in time, otherwise 0."""


class Cell(NamedTuple):
    clients: int
    rate: int
    peer: str


Results = dict[Cell, list[Measured]]


async def measure(
    server: Server, peer: Peer, load: Load, clients: int, rate: int, seconds: int
) -> Measured:
    """Write at a rate, and return how soon the clients had the changes."""
    writers = 16 if rate >= FAST_RATE else 8
    await server.clear()
    # pgbench connects, and Brain turns from parked to busy.
    outcome = await server.write(peer.statement, writers=writers, seconds=1, rate=rate)
    late = (await drained(load, outcome.transactions * clients)).late
    outcome = await server.write(peer.statement, writers=writers, seconds=seconds, rate=rate)
    received = await drained(load, late + outcome.transactions * clients)
    deliveries = len(received.ages) / (seconds + received.seconds)
    return Measured(
        percentile(received.ages, 50),
        percentile(received.ages, 99),
        outcome.rate,
        received.lost / (outcome.transactions * clients),
        deliveries if received.late else 0,
    )


async def measure_rates(
    server: Server, peer: Peer, clients: int, rates: Sequence[int], seconds: int, results: Results
) -> None:
    """Measure one peer at all rates, until it is behind."""
    adapter = peer.adapter
    dialects = alike(adapter.dialect, clients)
    counting = by_age(start=adapter.start)
    async with running_load(peer.port, dialects, *counting, host=peer.host) as load:
        for rate in rates:
            measured = await measure(server, peer, load, clients, rate, seconds)
            results.setdefault(Cell(clients, rate, peer.name), []).append(measured)
            if measured.behind:
                return


def milliseconds(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def shown(measured: Sequence[Measured], rate: int) -> str:
    if not measured:
        return "-"
    one = Measured(*map(statistics.median, zip(*measured, strict=True)))
    text = f"{milliseconds(one.fifty)}/{milliseconds(one.ninety_nine)}"
    if rate >= EVEN_RATE and one.rate < 0.9 * rate:
        text += f" {one.rate:,.0f}/s"
    if one.behind:
        text += f" behind {one.behind / 1000:,.0f}k/s"
    return text + (f" lost {one.lost_share:.1%}" if one.lost_share else "")


def print_results(results: Results, peers: Sequence[Peer]) -> None:
    for clients in dict.fromkeys(cell.clients for cell in results):
        rates = sorted({cell.rate for cell in results if cell.clients == clients})
        title = "one client" if clients == 1 else f"{clients:,} clients"
        print(f"{title:<24}{''.join(f'{rate:>27,}/s' for rate in rates)}")
        for peer in peers:
            cells = (shown(results.get(Cell(clients, rate, peer.name), []), rate) for rate in rates)
            print(f"  {peer.name:<22}{''.join(f' {cell:>28}' for cell in cells)}")
        print()


def parsed_peer(text: str) -> Peer:
    kind, _, address = text.partition("=")
    host, _, port = address.rpartition(":")
    if kind not in ADAPTERS or not host or not port.isdecimal():
        kinds = ", ".join(ADAPTERS)
        raise argparse.ArgumentTypeError(f"expected KIND=HOST:PORT, KIND one of {kinds}")
    return Peer(f"{kind} :{port}", kind, host, int(port), ADAPTERS[kind])


async def accepting(peer: Peer) -> None:
    """Wait until a peer accepts connections."""
    async with asyncio.timeout(STARTING_SECONDS):
        while True:
            with suppress(OSError):
                _, writer = await asyncio.open_connection(peer.host, peer.port)
                writer.close()
                return
            await asyncio.sleep(0.2)


async def prepare(server: Server, peers: Sequence[Peer]) -> None:
    """Make the tables, and wait for the peers."""
    for kind in dict.fromkeys(peer.kind for peer in peers):
        await server.admin.execute(ADAPTERS[kind].sql_for(kind))
    print(f"start the peers with the database {server.url}", flush=True)
    for peer in peers:
        await accepting(peer)


async def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().partition("\n\n")[0])
    parser.add_argument(
        "--peer", type=parsed_peer, action="append", default=[], metavar="KIND=HOST:PORT"
    )
    parser.add_argument("--rates", type=int, nargs="*", default=[10, 500, 2000, 5000])
    parser.add_argument("--many", type=int, default=1000, help="clients of the second table")
    parser.add_argument("--many-rates", type=int, nargs="*", default=[10, 50, 500, 2000])
    parser.add_argument("--seconds", type=int, default=5, help="at each rate")
    parser.add_argument("--repetitions", type=int, default=3)
    arguments = parser.parse_args()
    loads = ((1, arguments.rates), (arguments.many, arguments.many_rates))
    results: Results = {}
    with tempfile.TemporaryDirectory() as folder:
        async with running_server(Path(folder)) as server:
            await prepare(server, arguments.peer)
            async with brain_for_many(server.url, Path(folder)) as brain:
                own = Peer("Brain", "brain", "127.0.0.1", brain.port, BRAIN)
                peers = [*arguments.peer, own]
                for _ in range(arguments.repetitions):
                    for clients, rates in loads:
                        for peer in peers:
                            await measure_rates(
                                server, peer, clients, rates, arguments.seconds, results
                            )
            version = server.embedded.binaries.version
    print(
        f"PostgreSQL {version}, Python {platform.python_version()}, {os.cpu_count()} cores; median"
        f" of {arguments.repetitions} x {arguments.seconds} s; p50/p99 in milliseconds\n"
    )
    print_results(results, peers)


if __name__ == "__main__":
    asyncio.run(main())
