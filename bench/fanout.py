"""
What it costs to tell many clients the same, beside the least that it can cost.

    python -m bench.fanout [--clients 100 1000 10000] [--burst 10] [--frame-bytes 200]
                           [--seconds 1] [--repetitions 3]

In one run, with the same frames for so many WebSocket clients each:

- `socket.send` of one prepared frame for one socket after the other, which is the limit for a
  server that calls the kernel for every client and frame; and with the frames of a burst joined,
  which is the limit for one that calls it for every client;
- nginx with nchan, in C, with one worker, published to over HTTP. It leaves Nagle's algorithm on,
  which would have it wait 40 ms for its clients now and then: they acknowledge at once;
- the loop that one writes first, `await websocket.send_json(message)`, on Starlette and uvicorn;
- Brain: `brain serve` on a PostgreSQL that flushes its commits, published to by
  `SELECT brain.publish(...)` in a transaction. Its time begins before that transaction, which the
  others are spared, and so its rate with few clients tells how long a commit takes.

All servers run at the same time, each with its clients connected, and take turns within a
repetition. Two ways of publishing: one message at a time, the next one when everybody has the
former and after a pause of 10 ms; and so many in a burst, for Brain in one transaction, three
bursts under way at a time, lest a server wait for the next one; what it finds together, it may
join. Ten messages are compared byte by byte with every client before and after; all others are
counted by their bytes, exactly: what is missing or too much is an error.

The server has one core to itself, and the clients (`bench.load`), PostgreSQL and this process the
other. Printed are, as medians of the repetitions:

- deliveries a second: clients x messages / the time from before publishing until the last client
  has its last frame, without the pauses;
- the processor time of the server (with its child processes, as the kernel accounts it) for a
  delivery, whatever it was spent on, in the pauses too;
- what the server took of its core; for how long somebody else had that core while the server could
  have run, which is marked with `!` from a tenth of the time on; and what clients, PostgreSQL and
  this process took of theirs: with `*` more than nine tenths, and the rate is rather that of the
  clients. Processor times hold all the same.

After them comes what one more client adds to a message that comes alone: hearing of it costs the
same however many there are. The last lines are the ratios, each the median of the ratios within a
repetition.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import statistics
import tempfile
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from bench.descriptors import fitting
from bench.match import BRAIN, JOINED, NAMES, Measured, running_matches
from bench.nchan import NchanMissing, installed_nginx, version_of
from bench.note import Notes
from bench.server import Server, running_server
from bench.usage import Cores, chosen_cores, on_core

EXAMINED_MESSAGES = 10

# From here on the clients may be what the rest waits for.
SATURATED = 0.9
# From here on the rate is not only the server's doing.
DISTURBED = 0.1


class Key(NamedTuple):
    """What a row of the results is about."""

    clients: int
    messages: int
    """In a burst."""
    name: str


Results = dict[Key, list[Measured]]


async def repeat(
    server: Server, folder: Path, cores: Cores, arguments: argparse.Namespace
) -> tuple[Results, int]:
    """Measure everything; return it, and how many deliveries were counted."""
    results: Results = {}
    delivered = 0
    for clients in fitting(arguments.clients):
        notes = Notes(arguments.frame_bytes)
        async with running_matches(server, notes, clients, folder, cores) as matches:
            for match in matches:
                await match.examine(EXAMINED_MESSAGES)
            for _ in range(arguments.repetitions):
                for match in matches:
                    for messages in (1, *arguments.burst):
                        measured = await match.measure(messages, arguments.seconds)
                        key = Key(clients, messages, match.contender.name)
                        results.setdefault(key, []).append(measured)
            for match in matches:
                await match.examine(EXAMINED_MESSAGES)
                delivered += match.delivered
    return results, delivered


def way(messages: int) -> str:
    return "one at a time" if messages == 1 else f"bursts of {messages}"


def line(name: str, measured: Sequence[Measured]) -> str:
    if not measured:
        return f"  {name:<28}not installed"
    one = Measured(*map(statistics.median, zip(*measured, strict=True)))
    marks = "!" * (one.disturbed_share > DISTURBED) + "*" * (one.clients_share > SATURATED)
    return (
        f"  {name:<28}{one.rate:>14,.0f}{one.microseconds:>14.2f}{one.server_share:>9.0%}"
        f"{one.disturbed_share:>11.0%}{one.clients_share:>9.0%} {marks}".rstrip()
    )


def print_results(results: Results) -> None:
    for clients, messages in dict.fromkeys(key[:2] for key in results):
        print(
            f"{f'{clients:,} clients, {way(messages)}':<30}{'deliveries/s':>14}"
            f"{'us/delivery':>14}{'server':>9}{'disturbed':>11}{'clients':>9}"
        )
        for name in NAMES:
            print(line(name, results.get(Key(clients, messages, name), [])))
        print()


def print_growth(results: Results) -> None:
    """Print what a delivery costs beyond those to fewer clients, a column for each step up."""
    clients = list(dict.fromkeys(key.clients for key in results))
    steps = list(pairwise(clients))
    if not steps:
        return
    headings = "".join(f"{f'{few:,} to {many:,}':>18}" for few, many in steps)
    print(f"{'us for each further client, one at a time':<43}{headings}")
    for name in NAMES:
        costs = {
            number: number * statistics.median(one.microseconds for one in results[key])
            for number in clients
            if (key := Key(number, 1, name)) in results
        }
        cells = [
            f"{(costs[many] - costs[few]) / (many - few):18.2f}" for few, many in steps if costs
        ]
        print(f"  {name:<41}{''.join(cells)}")
    print()


def ratios(results: Results, base: str, messages: int, of: Callable[[Measured], float]) -> str:
    """Return Brain's ratio to another with each number of clients."""
    cells = []
    for clients in dict.fromkeys(key.clients for key in results):
        brain, other = (results.get(Key(clients, messages, name), []) for name in (BRAIN, base))
        values = [of(one) / of(two) for one, two in zip(brain, other, strict=False)]
        cells.append(f"{statistics.median(values):.2f} x" if values else "-")
    return "".join(f"{cell:>12}" for cell in cells)


def print_ratios(results: Results, bursts: Sequence[int]) -> None:
    """Print Brain's ratios to the others, a column for each number of clients."""
    columns = [f"{clients:,}" for clients in dict.fromkeys(key.clients for key in results)]
    print(f"{'Brain : the others, with so many clients':<59}{''.join(f'{c:>12}' for c in columns)}")
    for messages in (1, *bursts):
        # A burst of one is joined to nothing.
        bases = [name for name in NAMES if name != BRAIN and (messages > 1 or name != JOINED)]
        for base in bases:
            what = f"processor time : {base}, {way(messages)}"
            print(f"{what:<59}{ratios(results, base, messages, lambda one: one.microseconds)}")
        for base in bases:
            what = f"deliveries/s : {base}, {way(messages)}"
            print(f"{what:<59}{ratios(results, base, messages, lambda one: one.rate)}")


def print_heading(server: Server, cores: Cores, arguments: argparse.Namespace) -> None:
    try:
        nginx = f"nginx {version_of(installed_nginx())}"
    except NchanMissing as missing:
        nginx = f"nchan left out: {missing}"
    print(
        f"PostgreSQL {server.embedded.binaries.version}, Python {platform.python_version()},"
        f" {nginx}, {os.cpu_count()} cores; median of {arguments.repetitions} x"
        f" {arguments.seconds:g} s; frames of {arguments.frame_bytes} bytes"
    )
    if cores.server == cores.clients:
        print("there is one core: servers and clients share it, and only processor times compare")
    for wanted, clients in zip(arguments.clients, fitting(arguments.clients), strict=False):
        if clients < wanted:
            print(f"no more than {clients:,} clients fit into the limit of open files")
    print()


async def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().partition("\n\n")[0])
    parser.add_argument("--clients", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--burst", type=int, nargs="+", default=[10], help="messages at once")
    parser.add_argument("--frame-bytes", type=int, default=200, help="from 180")
    parser.add_argument("--seconds", type=float, default=1, help="of each way in a repetition")
    parser.add_argument("--repetitions", type=int, default=3)
    arguments = parser.parse_args()
    cores = chosen_cores()
    with tempfile.TemporaryDirectory() as folder, on_core(cores.clients):
        async with running_server(Path(folder)) as server:
            print_heading(server, cores, arguments)
            results, delivered = await repeat(server, Path(folder), cores, arguments)
    print_results(results)
    print_growth(results)
    print_ratios(results, arguments.burst)
    print(f"\n{delivered:,} deliveries were expected, and received: none was missing or doubled")


if __name__ == "__main__":
    asyncio.run(main())
