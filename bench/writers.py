"""
Measure the cost of change capture for writers: their rate, and processor time per change.

    python -m bench.writers [--seconds 2] [--repetitions 3] [--writers 1 8 32]

One run uses one PostgreSQL. pgbench updates random rows out of 10,000, one per transaction, with:

- no trigger; an empty row trigger; a row trigger that sends the row as JSON by `pg_notify` while
  one connection listens, as in programs that rely on NOTIFY;
- Brain with a node that sends everything to one client and that the load makes busy; with a node
  that is never busy, so that every transaction sends NOTIFY; and without a node: the triggers only.

Each variant runs with the disk as it is, with a flush that takes 1 ms more (`commit_delay`, a
stand-in for a network disk), and with `synchronous_commit` off. The variants take turns within a
repetition. The output shows medians over the repetitions: the rate, in brackets its ratio to the
rate without a trigger in the same repetition, and the processor time of all server processes per
change beyond that without a trigger. pgbench, the node and the client share the machine with the
server; where the processor is the bottleneck, the ratio reflects processor time, not waiting.

The last table is more exact: the processor time of the one backend that makes a change, with
`synchronous_commit` off and without a node, also for parts of Brain.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import asyncpg

from bench.cost import (
    BULK_ROUNDS,
    ROUNDS,
    extra_microseconds,
    microseconds_per_row,
    microseconds_per_update,
)
from bench.peer import CHANNEL
from bench.server import COUNTING, Server, running_server
from bench.variants import (
    ALONE,
    BUSY,
    CAPTURE,
    EMPTY,
    FILL_IN,
    NEVER_BUSY,
    NOTHING,
    NOTIFY,
    TRIGGERS,
    Variant,
)

FLUSHES: Mapping[str, Mapping[str, str]] = {
    "synchronous_commit on": {},
    "a flush takes 1 ms more": {"commit_delay": "1000", "commit_siblings": "0"},
    "synchronous_commit off": {"synchronous_commit": "off"},
}
VARIANTS = (NOTHING, EMPTY, NOTIFY, BUSY, NEVER_BUSY, ALONE)
PARTS = (NOTHING, EMPTY, NOTIFY, ALONE, CAPTURE, FILL_IN)

# The aims are for Brain with a busy node and this number of writers.
AIMED_WRITERS = 32
AIMS = {
    ("synchronous_commit on", NOTIFY): 4.0,
    ("a flush takes 1 ms more", NOTIFY): 12.0,
    ("synchronous_commit on", NOTHING): 0.5,
    ("a flush takes 1 ms more", NOTHING): 0.5,
}


class Load(NamedTuple):
    flush: str
    variant: Variant
    writers: int


class Measured(NamedTuple):
    rate: float
    microseconds: float
    """Processor time of the server per transaction."""
    was_parked: bool
    """True if a node was parked after three quarters of the time."""


Results = dict[Load, list[Measured]]


async def measure(server: Server, writers: int, seconds: int) -> Measured:
    async def is_parked() -> bool:
        await asyncio.sleep(seconds * 0.75)
        return await server.has_parked_node()

    await server.clear()
    spent = server.cpu_seconds
    async with asyncio.TaskGroup() as tasks:
        checking = tasks.create_task(is_parked())
        outcome = await server.write(COUNTING, writers=writers, seconds=seconds)
    spent = server.cpu_seconds - spent
    return Measured(outcome.rate, spent / outcome.transactions * 1e6, checking.result())


async def repeat(server: Server, folder: Path, arguments: argparse.Namespace) -> Results:
    results: Results = {}
    for _ in range(arguments.repetitions):
        for flush, settings in FLUSHES.items():
            await server.configure(settings)
            for variant in VARIANTS:
                async with variant.in_effect(server, folder):
                    for writers in arguments.writers:
                        measured = await measure(server, writers, arguments.seconds)
                        results.setdefault(Load(flush, variant, writers), []).append(measured)
    await server.configure({})
    return results


def ratio(results: Results, load: Load, base: Variant) -> float:
    """Return the median, over the repetitions, of the ratio of two variants' rates."""
    pairs = zip(results[load], results[load._replace(variant=base)], strict=True)
    return statistics.median(measured.rate / floor.rate for measured, floor in pairs)


def cell(results: Results, load: Load) -> str:
    measured = results[load]
    rate = statistics.median(one.rate for one in measured)
    # The node should have been busy, but was parked.
    odd = load.variant is BUSY and any(one.was_parked for one in measured)
    return (
        f"{rate:7.0f} ({ratio(results, load, NOTHING):4.2f})"
        f" {microseconds(results, load):>6} us{'*' if odd else ' '}"
    )


def microseconds(results: Results, load: Load) -> str:
    """Return the server's processor time per write, beyond that without a trigger."""
    measured, floor = results[load], results[load._replace(variant=NOTHING)]
    if load.variant is NOTHING:
        return f"{statistics.median(one.microseconds for one in measured):.0f}"
    pairs = zip(measured, floor, strict=True)
    return f"{statistics.median(one.microseconds - base.microseconds for one, base in pairs):+.0f}"


def lines(results: Results, flush: str, all_writers: Sequence[int]) -> Iterator[str]:
    """Yield the lines of the table for one way of flushing."""

    def row(name: str, cells: Iterator[str], remark: str = "") -> str:
        return f"{name:<27}{''.join(f'{text:>28}' for text in cells)}   {remark}".rstrip()

    yield row(flush, (f"{writers} writer{'s'[: writers - 1]}{'':11}" for writers in all_writers))
    for variant in VARIANTS:
        loads = [Load(flush, variant, writers) for writers in all_writers]
        yield row(variant.name, (cell(results, load) for load in loads))
    for variant in (BUSY, ALONE):
        loads = [Load(flush, variant, writers) for writers in all_writers]
        for base in (NOTIFY, NOTHING):
            ratios = (f"{ratio(results, load, base):.2f} x{'':11}" for load in loads)
            aim = AIMS.get((flush, base)) if variant is BUSY else None
            remark = f"aim at {AIMED_WRITERS}: {aim:g} x" if aim else ""
            yield row(f"{variant.name} : {base.name}", ratios, remark)
    yield ""


async def print_costs(server: Server) -> None:
    listener = await asyncpg.connect(server.url)
    await listener.add_listener(CHANNEL, lambda *_: None)
    one = await extra_microseconds(server, PARTS, microseconds_per_update, ROUNDS)
    bulk = await extra_microseconds(server, PARTS, microseconds_per_row, BULK_ROUNDS)
    await listener.close()
    print(f"{'microseconds of the backend':<28}{'one-row UPDATE':>16}{'per row of 10,000':>20}")
    for number, variant in enumerate(PARTS):
        sign = "+" if number else ""
        print(f"{variant.name:<28}{one[number]:>{sign}16.1f}{bulk[number]:>{sign}20.1f}")


async def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--seconds", type=int, default=2, help="per measurement")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--writers", type=int, nargs="+", default=[1, 8, 32])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        async with running_server(Path(folder)) as server:
            await server.admin.execute(TRIGGERS)
            results = await repeat(server, Path(folder), arguments)
            print(
                f"PostgreSQL {server.embedded.binaries.version}, {os.cpu_count()} cores, median of"
                f" {arguments.repetitions} x {arguments.seconds} s: writes a second, (ratio to no"
                " trigger), processor time of the server per write beyond no trigger; * the node"
                " was parked under the load\n"
            )
            for flush in FLUSHES:
                print("\n".join(lines(results, flush, arguments.writers)))
            await print_costs(server)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main())
