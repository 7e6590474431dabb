"""The cost of a change: the processor time of the PostgreSQL backend that makes it."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Coroutine, Sequence

import asyncpg

from bench.processes import cpu_nanoseconds
from bench.server import WRITTEN_ROWS, Server
from bench.variants import Variant

ROUNDS = 10
UPDATES = 300
BULK_ROUNDS = 4
ONE_ROW = "UPDATE tasks SET progress = progress + 1 WHERE id = $1"
ALL_ROWS = f"UPDATE tasks SET progress = progress + 1 WHERE id::integer <= {WRITTEN_ROWS}"

Measurement = Callable[[asyncpg.Connection], Coroutine[None, None, float]]


async def microseconds_per_update(writer: asyncpg.Connection) -> float:
    """Return the processor time of a transaction that updates one row."""
    update = await writer.prepare(ONE_ROW)
    process = writer.get_server_pid()
    for number in range(UPDATES + 20):
        if number == 20:  # before, the backend makes its plans and loads the functions
            begun = cpu_nanoseconds(process)
        await update.fetch(str(random.randint(1, WRITTEN_ROWS)))
    return (cpu_nanoseconds(process) - begun) / UPDATES / 1000


async def microseconds_per_row(writer: asyncpg.Connection) -> float:
    """Return the processor time per row of a transaction that updates all rows."""
    process = writer.get_server_pid()
    begun = cpu_nanoseconds(process)
    await writer.execute(ALL_ROWS)
    return (cpu_nanoseconds(process) - begun) / WRITTEN_ROWS / 1000


async def extra_microseconds(
    server: Server, variants: Sequence[Variant], measure: Measurement, rounds: int
) -> list[float]:
    """Return the median cost of the first variant, then the extra cost of each other one."""
    writer = await asyncpg.connect(server.url)
    await writer.execute("SET synchronous_commit = off")
    costs: list[list[float]] = [[] for _ in variants]
    # The first round is a warm-up.
    for _ in range(rounds + 1):
        for variant, measured in zip(variants, costs, strict=True):
            await server.clear()
            await variant.enable(server)
            measured.append(await measure(writer))
    await writer.close()
    base = costs[0]
    extra = [[cost - floor for cost, floor in zip(c[1:], base[1:], strict=True)] for c in costs[1:]]
    return [statistics.median(base[1:]), *map(statistics.median, extra)]
