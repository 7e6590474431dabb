"""Who is connected to any of several processes, through a real database."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import asyncpg
import pytest

from brain.database.attendance import Attendance, Visit
from brain.database.migrations import migrate, shipped
from brain.database.nodes import Nodes
from tests.postgres import as_role, new_database, ordinary_role
from tests.proxy import proxy_to

PATIENCE_SECONDS = 20.0
CLIENTS = "SELECT sum(clients) FROM brain.nodes"
SIZE = "SELECT pg_relation_size('brain.nodes') + pg_relation_size('brain.nodes_pkey')"

TERMINATE = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
     WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


class Process:
    """One of those that serve, as far as the others hear of it."""

    def __init__(self, url: str, clients: int) -> None:
        self.attendance = Attendance()
        self.nodes = Nodes(url, self.attendance, timeout_seconds=PATIENCE_SECONDS * 2)
        self.welcome(clients)

    def welcome(self, clients: int) -> None:
        """Have so many more strangers here."""
        for _ in range(clients):
            self.attendance.arrive(Visit(uuid4(), None, False, frozenset()))

    async def counts(self) -> int:
        """Return how many clients there are, as far as this process knows."""
        return self.attendance.counts().clients + await self.nodes.clients_elsewhere()


@asynccontextmanager
async def serving(url: str, clients: int) -> AsyncIterator[Process]:
    process = Process(url, clients)
    beating = asyncio.create_task(process.nodes.beat())
    try:
        yield process
    finally:
        beating.cancel()
        await asyncio.wait([beating])


async def becomes(ask: Callable[[], Awaitable[object]], expected: object) -> None:
    """Return once `ask` is answered as expected."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await ask() != expected:
            await asyncio.sleep(0.01)


async def last_seen(connection: asyncpg.Connection, node: UUID, seconds_ago: float) -> None:
    """Make believe that a node was not seen since then."""
    await connection.execute(
        "UPDATE brain.nodes SET seen_at = clock_timestamp() - make_interval(secs => $2)"
        " WHERE id = $1",
        node,
        seconds_ago,
    )


async def test_every_process_counts_the_clients_of_all(database: str) -> None:
    async with AsyncExitStack() as stack:
        processes = [
            await stack.enter_async_context(serving(database, clients)) for clients in (1, 10, 100)
        ]
        for process in processes:
            await becomes(process.counts, 111)

        processes[1].welcome(10)
        for process in processes:
            await becomes(process.counts, 121)


async def test_a_change_is_told_without_waiting_for_the_next_beat(
    database: str, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brain.database.nodes.BEAT_SECONDS", 1000.0)
    async with serving(database, 1) as process:
        await becomes(lambda: connection.fetchval(CLIENTS), 1)
        process.welcome(1)
        await becomes(lambda: connection.fetchval(CLIENTS), 2)


async def test_who_asks_at_once_gets_the_same_answer(database: str) -> None:
    async with serving(database, 1), serving(database, 10) as process:
        await becomes(process.counts, 11)

        assert await asyncio.gather(*(process.counts() for _ in range(50))) == [11] * 50


async def test_a_process_says_who_it_is_and_leaves_nothing_behind(
    database: str, connection: asyncpg.Connection
) -> None:
    names = "SELECT array_agg(name) FROM brain.nodes"
    async with serving(database, 3):
        name = f"{socket.gethostname()} {os.getpid()}"
        await becomes(lambda: connection.fetchval(names), [name])

    assert await connection.fetchval(names) is None


@pytest.mark.parametrize("seconds_ago", [6, -6], ids=["since then", "since the clock was set back"])
async def test_who_was_not_seen_for_a_while_counts_no_more(
    database: str, connection: asyncpg.Connection, seconds_ago: float
) -> None:
    dead, alive = uuid4(), uuid4()
    await connection.execute("SELECT brain.beat($1, 'dead', 5)", dead)
    assert await connection.fetchval("SELECT brain.clients_elsewhere($1)", alive) == 5
    await last_seen(connection, dead, seconds_ago)

    assert await connection.fetchval("SELECT brain.clients_elsewhere($1)", alive) == 0
    assert await connection.fetchval("SELECT brain.beat($1, 'alive', 1)", alive) == 0
    assert await connection.fetchval("SELECT array_agg(name) FROM brain.nodes") == ["alive"]


async def test_a_beat_does_not_wait_for_another_that_forgets_the_dead(
    database: str, connection: asyncpg.Connection
) -> None:
    dead = uuid4()
    await connection.execute("SELECT brain.beat($1, 'dead', 5)", dead)
    await last_seen(connection, dead, 6)
    other = await asyncpg.connect(database)
    async with other.transaction():
        await other.execute("SELECT FROM brain.nodes WHERE id = $1 FOR UPDATE", dead)

        await connection.execute("SET lock_timeout = '100ms'")
        assert await connection.fetchval("SELECT brain.beat($1, 'alive', 1)", uuid4()) == 0
    await other.close()


async def test_a_process_that_was_forgotten_comes_back(
    database: str, connection: asyncpg.Connection
) -> None:
    """After a crash of the server the table is empty, and connections are gone."""
    async with serving(database, 1), serving(database, 10) as process:
        await becomes(process.counts, 11)

        for harm in ("", TERMINATE):
            await connection.execute(f"TRUNCATE brain.nodes; {harm}")
            await becomes(lambda: connection.fetchval(CLIENTS), 11)
            await becomes(process.counts, 11)


async def test_without_the_database_a_process_counts_its_own_clients_promptly(
    database: str,
) -> None:
    async with proxy_to(database) as (url, proxy):
        async with serving(database, 1), serving(url, 10) as process:
            await becomes(process.counts, 11)

            proxy.swallow()
            async with asyncio.timeout(PATIENCE_SECONDS):
                assert await process.counts() == 10
            proxy.restore()
            await becomes(process.counts, 11)

    async with serving("postgresql://127.0.0.1:1/nowhere", 10) as process:
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await process.counts() == 10


async def test_the_table_does_not_grow(connection: asyncpg.Connection) -> None:
    nodes = [uuid4() for _ in range(20)]
    beat = "SELECT brain.beat($1, 'a host of ordinary length 12345', $2)"
    for node in nodes:
        await connection.execute(beat, node, 0)
    at_first: int = await connection.fetchval(SIZE)

    for number in range(200):
        for node in nodes:
            await connection.execute(beat, node, number)

    assert await connection.fetchval(SIZE) <= at_first + 8192


async def test_an_ordinary_role_that_serves_may_count(postgres: str) -> None:
    async with (
        ordinary_role(postgres, "CREATEROLE") as (role, admin),
        new_database(postgres) as url,
    ):
        await admin.execute(f"ALTER DATABASE {urlsplit(url).path[1:]} OWNER TO {role}")
        await admin.execute(f"GRANT brain_owner TO {role}")
        await migrate(as_role(url, role), shipped())

        async with serving(as_role(url, role), 1) as one, serving(as_role(url, role), 10):
            await becomes(one.counts, 11)
        left = await asyncpg.connect(url)
        assert await left.fetchval("SELECT count(*) FROM brain.nodes") == 0
        await left.close()
