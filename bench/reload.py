"""
Measure clients that are sent the rows of their subscriptions at the same time.

    python -m bench.reload [--clients 1000] [--filters 1000] [--rows 20000]
        [--exact] [--again 1]

The rows of a table belong to 1,000 owners; a client of brain.v1 subscribes to those of one owner,
with a snapshot. With fewer filters than clients, several clients ask for the same rows. All ask
after they have connected, a few at a time until they are answered. Then one transaction changes
rows without sending them one by one: all clients get a reset, and the rows again, as often as
`--again` says. The output shows for each:

- the time from the first frame to the last `live` of all clients, and the rows that they got;
- the ticks that were cut;
- the queries of rows, as pg_stat_statements counts the calls of `pg_temp.brain_read`;
- the processor time of PostgreSQL and of Brain.

`--exact` asks for rows of one moment. Brain, PostgreSQL and the clients share all cores.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg

from bench.brain import brain_for_many
from bench.processes import family_cpu_seconds
from brain.database.migrations import migrate
from brain.database.schema_files import core_schema
from brain.embedded.server import EmbeddedServer, serve_embedded
from tests.end_to_end.brain import RunningBrain
from tests.raw_websocket import TEXT, RawClient, upgraded

OWNERS = 1000
AT_A_TIME = 10
TABLE = """
    CREATE EXTENSION pg_stat_statements;
    CREATE TABLE orders (id int PRIMARY KEY, owner int, status text, note text);
    CREATE INDEX ON orders (owner, id);
    SELECT brain.watch('orders', 'orders', '{id,owner,status,note}');
"""
FILL = """
    INSERT INTO orders SELECT n, n % $1, 'new', repeat('x', 100) FROM generate_series(1, $2::int) n
"""
RESET = """
    BEGIN; SET LOCAL brain.capture = 'off'; UPDATE orders SET status = 'paid' WHERE id % 10 = 0;
    COMMIT
"""
READS = """
    SELECT coalesce(sum(calls), 0)::int FROM pg_stat_statements
     WHERE toplevel AND query ~ '(FROM|LATERAL) pg_temp.brain_read'
"""
LIVE = b'"op":"live"'
PAGE = b'"op":"snapshot"'


class Outcome(NamedTuple):
    seconds: float
    rows: int
    ticks: int
    reads: int
    postgres_seconds: float
    brain_seconds: float

    def __str__(self) -> str:
        return (
            f"{self.seconds:6.2f} s {self.rows:8} rows {self.ticks:5} ticks {self.reads:5} queries"
            f" {self.postgres_seconds:6.2f} s PostgreSQL {self.brain_seconds:6.2f} s Brain"
        )


class Place(NamedTuple):
    server: EmbeddedServer
    admin: asyncpg.Connection
    brain: RunningBrain

    async def measured(self, work: Callable[[], Coroutine[Any, Any, int]]) -> Outcome:
        """Return what `work` takes, which returns a number of rows."""
        await self.admin.execute("SELECT pg_stat_statements_reset()")
        ticks = await self._ticks()
        postgres = family_cpu_seconds(self.server.process_id)
        brain = family_cpu_seconds(self.brain.process.pid)
        begun_at = time.monotonic()
        rows = await work()
        return Outcome(
            time.monotonic() - begun_at,
            rows,
            await self._ticks() - ticks,
            await self.admin.fetchval(READS),
            family_cpu_seconds(self.server.process_id) - postgres,
            family_cpu_seconds(self.brain.process.pid) - brain,
        )

    async def _ticks(self) -> int:
        return int(await self.admin.fetchval("SELECT max(id) FROM brain.ticks"))


async def rows_until_live(client: RawClient) -> int:
    """Return how many rows a client gets until it is live."""
    rows = 0
    while (text := await client.next_text()) is not None:
        if PAGE in text:
            rows += text.count(b'"key":')
        if LIVE in text:
            return rows
        assert b'"type":"error"' not in text, text
    raise ConnectionError(f"closed with {client.close_code}")


async def run(arguments: argparse.Namespace) -> None:
    settings = {"shared_preload_libraries": "pg_stat_statements"}
    with (
        tempfile.TemporaryDirectory() as folder,
        serve_embedded(Path(folder) / "database", superuser=True, settings=settings) as server,
    ):
        await migrate(server.url, [core_schema()])
        admin = await asyncpg.connect(server.url)
        await admin.execute(TABLE)
        await admin.execute(FILL, OWNERS, arguments.rows)
        await admin.execute("ANALYZE orders")
        async with AsyncExitStack() as stack:
            brain = await stack.enter_async_context(brain_for_many(server.url, Path(folder)))
            place = Place(server, admin, brain)
            clients = [
                await stack.enter_async_context(upgraded(brain.port, "/ws/v1"))
                for _ in range(arguments.clients)
            ]

            turn = asyncio.Semaphore(AT_A_TIME)

            async def subscribe(number: int) -> int:
                frame = {
                    "type": "subscribe",
                    "id": "a",
                    "channel": "orders",
                    "where": {"owner": number % arguments.filters},
                    "snapshot": "exact" if arguments.exact else True,
                }
                async with turn:
                    await clients[number].send_frame(TEXT, json.dumps(frame).encode())
                    answer = b""
                    while b'"type":"subscribed"' not in answer:
                        answer = await clients[number].next_text() or b""
                return await rows_until_live(clients[number])

            async def all_subscribe() -> int:
                return sum(await asyncio.gather(*map(subscribe, range(len(clients)))))

            async def all_reload() -> int:
                await admin.execute(RESET)
                return sum(await asyncio.gather(*map(rows_until_live, clients)))

            print(f"{arguments.clients} clients, {arguments.filters} filters")
            print("subscribed", await place.measured(all_subscribe), flush=True)
            for _ in range(arguments.again):
                print("reset     ", await place.measured(all_reload), flush=True)
        await admin.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--filters", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--exact", action="store_true")
    parser.add_argument("--again", type=int, default=1, metavar="RESETS")
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
