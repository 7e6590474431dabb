"""
Measure the cost of change capture for writers: their rate, and processor time per change.

    python -m bench.writers [--seconds 2] [--repetitions 3] [--writers 1 8 32]

One run uses one PostgreSQL. pgbench updates random rows out of 10,000, one per transaction, with:

- no trigger; an empty row trigger; a row trigger that sends the row as JSON by `pg_notify` while
  one connection listens, as in programs that rely on NOTIFY;
- Brain with a node that sends everything to one client and that the load makes busy; the same
  without the other trigger of `tasks`, as on a watched table of a user's own; with a node that is
  never busy, so that every transaction sends NOTIFY; and without a node: the triggers only.

Each variant runs with the disk as it is, with a flush that takes 1 ms more (`commit_delay`, a
stand-in for a network disk), and with `synchronous_commit` off. The variants take turns within a
repetition. The output shows medians over the repetitions: the rate, in brackets its ratio to the
rate without a trigger in the same repetition, and the processor time of all server processes per
change beyond that without a trigger. pgbench, the node and the client share the machine with the
server; where the processor is the bottleneck, the ratio reflects processor time, not waiting.

The last table is more exact: the processor time of the one backend that makes a change, with
`synchronous_commit` off and without a node, also for parts of Brain. Below it are the bytes of the
log per event, and what large values cost a transaction.
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
    ALL_ROWS,
    BULK_ROUNDS,
    ROUNDS,
    extra_microseconds,
    microseconds_per_row,
    microseconds_per_update,
)
from bench.peer import CHANNEL
from bench.processes import cpu_nanoseconds
from bench.server import COUNTING, Server, running_server
from bench.variants import (
    ALONE,
    BUSY,
    CAPTURE,
    CAPTURE_ONLY,
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
VARIANTS = (NOTHING, EMPTY, NOTIFY, BUSY, CAPTURE_ONLY, NEVER_BUSY, ALONE)
PARTS = (NOTHING, EMPTY, NOTIFY, ALONE, CAPTURE, FILL_IN)

# The aims are for Brain with a busy node and this number of writers.
AIMED_WRITERS = 32
AIMS = {
    ("synchronous_commit on", BUSY, NOTIFY): 2.8,
    ("synchronous_commit on", BUSY, NOTHING): 0.55,
    ("synchronous_commit on", CAPTURE_ONLY, NOTHING): 0.6,
    ("a flush takes 1 ms more", BUSY, NOTIFY): 12.0,
    ("a flush takes 1 ms more", BUSY, NOTHING): 0.5,
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


LARGE_BYTES = (1 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 20 << 20)
LARGE_UPDATES = 100
LARGE_TABLE = """
    DROP TABLE IF EXISTS large;
    CREATE TABLE large (id int PRIMARY KEY, number int, value bytea);
    ALTER TABLE large ALTER value SET STORAGE EXTERNAL;
"""

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
    for variant in (BUSY, CAPTURE_ONLY, ALONE):
        loads = [Load(flush, variant, writers) for writers in all_writers]
        for base in (NOTIFY, NOTHING):
            ratios = (f"{ratio(results, load, base):.2f} x{'':11}" for load in loads)
            aim = AIMS.get((flush, variant, base))
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


async def print_log_size(server: Server) -> None:
    """Print how many bytes an event of an update takes in the log."""
    await server.clear()
    await CAPTURE.enable(server)
    await server.admin.execute(ALL_ROWS)
    ((events, table, index),) = await server.admin.fetch(
        """
        SELECT (SELECT count(*) FROM brain.events),
               sum(pg_table_size(c.oid))::bigint, sum(pg_indexes_size(c.oid))::bigint
          FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid
         WHERE inhparent = 'brain.events'::regclass
        """
    )
    print(f"\nbytes of the log per event: {table / events:.0f}, its index {index / events:.0f}")


async def print_large_values(server: Server) -> None:
    """Print what an update of another column costs a row with a large watched value."""
    writer = await asyncpg.connect(server.url)
    await writer.execute(LARGE_TABLE)
    print(f"\n{'microseconds of the backend':<28}{'not watched':>16}{'watched':>12}")
    for size in LARGE_BYTES:
        found = []
        for is_watched in (False, True):
            await writer.execute("TRUNCATE large; SET synchronous_commit = off")
            await writer.execute(
                "INSERT INTO large SELECT 1, 0, decode(string_agg(md5(i::text), ''), 'hex')"
                " FROM generate_series(1, $1) i",
                size // 16,
            )
            if is_watched:
                await writer.execute("SELECT brain.watch('large', 'large', '{id,number,value}')")
            update = await writer.prepare("UPDATE large SET number = number + 1")
            process = writer.get_server_pid()
            for number in range(LARGE_UPDATES + 20):
                if number == 20:
                    begun = cpu_nanoseconds(process)
                await update.fetch()
            found.append((cpu_nanoseconds(process) - begun) / LARGE_UPDATES / 1000)
        await writer.execute("SELECT brain.unwatch('large')")
        print(f"{size // 1024:>8} KiB{'':<17}{found[0]:>16.0f}{found[1]:>12.0f}")
    await writer.execute("DROP TABLE large")
    await writer.close()


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
            await print_log_size(server)
            await print_large_values(server)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main())
