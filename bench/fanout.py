"""
Measure the cost of sending one message to many clients, against the lower limit of that cost.

    python -m bench.fanout [--clients 100 1000 10000] [--burst 10] [--frame-bytes 200]
                           [--seconds 1] [--repetitions 3]

One run compares these servers, with the same frames and the same number of WebSocket clients:

- `socket.send` of one prepared frame to one socket after the other: the limit for a server that
  makes one system call per client and frame; and the same with the frames of a burst joined: the
  limit for a server that makes one system call per client;
- nginx with nchan, in C, with one worker; messages are published over HTTP. It leaves Nagle's
  algorithm on, which would sometimes delay a frame by 40 ms, so its clients acknowledge at once;
- the naive loop, `await websocket.send_json(message)`, on Starlette and uvicorn;
- Brain: `brain serve` on a PostgreSQL that flushes its commits; messages are published by
  `SELECT brain.publish(...)` in a transaction. Its time includes this transaction, which the others
  do not have, so with few clients its rate depends on the duration of a commit. One Brain has three
  times as many clients: on `/ws`, of brain.v1, and of server-sent events.

All servers run at the same time, each with its clients connected, and take turns within a
repetition. There are two modes of publishing. One at a time: the next message is published when
every client has the previous one, after a pause of 10 ms. Bursts: several messages at once (for
Brain in one transaction), with three bursts in flight so that no server waits for the next one; a
server may join the frames that it finds together. Before and after, ten messages are compared byte
by byte at every client. All other messages are counted by their bytes, and any byte that is missing
or too many is an error. Those of brain.v1 have cursors, which differ in length: a mark in each is
counted. They are some 90 bytes longer, and server-sent events some 130.

The server has one core to itself; the clients (`bench.load`), PostgreSQL and this process share the
other one. The output shows medians over the repetitions:

- deliveries/s: clients x messages / the time from before publishing until the last client has its
  last frame, without the pauses;
- us/delivery: processor time of the server and its child processes per delivery, as the kernel
  accounts it, for all of their work, also in the pauses; and that of PostgreSQL, which only Brain
  uses: the transaction that publishes, and what Brain reads;
- us/message: the same two per message, whatever the number of clients;
- server: the server's use of its core;
- disturbed: the share of the time in which another process used that core while the server was
  ready to run; marked with `!` above a tenth;
- clients: the use of the other core by clients, PostgreSQL and this process; marked with `*` above
  nine tenths, where the clients limit the rate. Processor times stay valid.

The next table shows the cost of one more client, for one message at a time: receiving the message
from the database costs the same for any number of clients. The last lines are ratios, each the
median of the ratios within a repetition. Brain joins the messages that it finds together, so its
bursts are compared with the bursts of those that may join them too.
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
from bench.match import BARE, BRAIN, BRAINS, JOINED, NAMES, Measured, running_matches
from bench.nchan import NchanMissing, installed_nginx, version_of
from bench.note import Notes
from bench.server import Server, running_server
from bench.usage import Cores, chosen_cores, on_core

EXAMINED_MESSAGES = 10

# Above this share the clients may be the bottleneck.
SATURATED = 0.9
# Above this share other processes affect the rate.
DISTURBED = 0.1


class Key(NamedTuple):
    """Identifies a row of the results."""

    clients: int
    messages: int
    """Messages per burst; 1 for one at a time."""
    name: str


Results = dict[Key, list[Measured]]


async def repeat(
    server: Server, folder: Path, cores: Cores, arguments: argparse.Namespace
) -> tuple[Results, int]:
    """Run all measurements; return the results and the number of counted deliveries."""
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


def mode(messages: int) -> str:
    return "one at a time" if messages == 1 else f"bursts of {messages}"


def microseconds(server: float, database: float, digits: int) -> str:
    """Return two cells: the processor time of the server, and of the database if it has one."""
    other = f"{database:,.{digits}f}" if database else ""
    return f"{server:>14,.{digits}f}{other:>12}"


def line(name: str, measured: Sequence[Measured]) -> str:
    if not measured:
        return f"  {name:<28}left out"
    one = Measured(*map(statistics.median, zip(*measured, strict=True)))
    marks = "!" * (one.disturbed_share > DISTURBED) + "*" * (one.clients_share > SATURATED)
    return (
        f"  {name:<28}{one.rate:>14,.0f}"
        f"{microseconds(one.microseconds, one.database_microseconds, 2)}"
        f"{microseconds(one.message_microseconds, one.database_message_microseconds, 0)}"
        f"{one.server_share:>9.0%}{one.disturbed_share:>11.0%}{one.clients_share:>9.0%}"
        f" {marks}".rstrip()
    )


def print_results(results: Results) -> None:
    for clients, messages in dict.fromkeys(key[:2] for key in results):
        print(
            f"{f'{clients:,} clients, {mode(messages)}':<30}{'deliveries/s':>14}"
            f"{'us/delivery':>14}{'PostgreSQL':>12}{'us/message':>14}{'PostgreSQL':>12}"
            f"{'server':>9}{'disturbed':>11}{'clients':>9}"
        )
        for name in NAMES:
            print(line(name, results.get(Key(clients, messages, name), [])))
        print()


def print_growth(results: Results) -> None:
    """Print the cost of each further client, one column per step in the number of clients."""
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
            f"{(costs[many] - costs[few]) / (many - few):18.2f}" if many in costs else f"{'-':>18}"
            for few, many in steps
        ]
        if costs:
            print(f"  {name:<41}{''.join(cells)}")
    print()


def ratios(
    results: Results, name: str, base: str, messages: int, of: Callable[[Measured], float]
) -> str:
    """Return the ratio of one server to another, one cell per number of clients."""
    cells = []
    for clients in dict.fromkeys(key.clients for key in results):
        ones, others = (results.get(Key(clients, messages, each), []) for each in (name, base))
        values = [of(one) / of(two) for one, two in zip(ones, others, strict=False)]
        cells.append(f"{statistics.median(values):.2f} x" if values else "-")
    return "".join(f"{cell:>12}" for cell in cells)


def print_ratios(results: Results, bursts: Sequence[int]) -> None:
    """Print Brain's ratios to the other servers, one column per number of clients."""
    columns = [f"{clients:,}" for clients in dict.fromkeys(key.clients for key in results)]
    print(f"{'Brain : other servers, number of clients':<59}{''.join(f'{c:>12}' for c in columns)}")
    for messages in (1, *bursts):
        # A burst of one message has nothing to join. Where there is something, Brain joins it.
        left_out = {JOINED if messages == 1 else BARE, *BRAINS}
        others = [one for one in NAMES if one not in left_out]
        pairs = [(BRAIN, other) for other in others]
        pairs += [(name, BRAIN) for name in BRAINS if name != BRAIN]
        for name, base in pairs:
            label = f"processor time : {base}, {mode(messages)}"
            if name != BRAIN:
                label = f"processor time of {name} : {base}, {mode(messages)}"
            cells = ratios(results, name, base, messages, lambda one: one.microseconds)
            print(f"{label:<59}{cells}")
        for base in others:
            label = f"deliveries/s : {base}, {mode(messages)}"
            print(f"{label:<59}{ratios(results, BRAIN, base, messages, lambda one: one.rate)}")


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
        print("only one core: servers and clients share it, so compare processor times only")
    for wanted, clients in zip(arguments.clients, fitting(arguments.clients), strict=False):
        if clients < wanted:
            print(f"the limit of open files allows {clients:,} clients, not {wanted:,}")
    print()


async def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().partition("\n\n")[0])
    parser.add_argument("--clients", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--burst", type=int, nargs="+", default=[10], help="messages per burst")
    parser.add_argument("--frame-bytes", type=int, default=200, help="at least 180")
    parser.add_argument("--seconds", type=float, default=1, help="of each mode in a repetition")
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
    print(f"\n{delivered:,} deliveries expected and received; none lost or duplicated")


if __name__ == "__main__":
    asyncio.run(main())
