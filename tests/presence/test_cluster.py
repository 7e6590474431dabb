"""The number of clients of all nodes, counted through a real database."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import pytest

from brain.database.migrations import migrate
from brain.presence.cluster import Cluster
from brain.presence.tracker import ClientInfo, PresenceTracker
from tests.postgres import as_role, new_database, ordinary_role
from tests.presence.reporting import PATIENCE_SECONDS, becomes, last_seen, running_node
from tests.proxy import proxy_to
from tests.schemas import every_schema

pytestmark = pytest.mark.postgres_versions
CLIENTS = "SELECT sum(clients) FROM brain.nodes"

# A node's whole state: its id, name, number of the report, and clients.
REPORT = "SELECT brain.report_node($1, $2, $3, true, $4, 0, '{}', '{}', '{}', '{}')"


class Node:
    """A node with clients."""

    def __init__(self, url: str, clients: int) -> None:
        self.tracker = PresenceTracker()
        self.cluster = Cluster(url, self.tracker, timeout_seconds=PATIENCE_SECONDS * 2)
        self.connect(clients)

    def connect(self, clients: int) -> None:
        """Add anonymous clients."""
        for _ in range(clients):
            self.tracker.add(ClientInfo(uuid4(), None, False, frozenset()))

    async def counts(self) -> int:
        """Return the number of clients of all nodes that this node knows of."""
        return self.tracker.counts().clients + await self.cluster.clients_elsewhere()


@asynccontextmanager
async def serving(url: str, clients: int) -> AsyncIterator[Node]:
    node = Node(url, clients)
    running = asyncio.create_task(node.cluster.run())
    try:
        yield node
    finally:
        running.cancel()
        await asyncio.wait([running])


async def test_every_node_counts_the_clients_of_all(database: str) -> None:
    async with AsyncExitStack() as stack:
        nodes = [
            await stack.enter_async_context(serving(database, clients)) for clients in (1, 10, 100)
        ]
        for node in nodes:
            await becomes(node.counts, 111)

        nodes[1].connect(10)
        for node in nodes:
            await becomes(node.counts, 121)


async def test_a_change_is_reported_before_the_next_regular_report(
    database: str, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brain.presence.cluster.REPORT_SECONDS", 1000.0)
    async with serving(database, 1) as node:
        await becomes(lambda: connection.fetchval(CLIENTS), 1)
        node.connect(1)
        await becomes(lambda: connection.fetchval(CLIENTS), 2)


async def test_calls_at_the_same_time_get_the_same_result(database: str) -> None:
    async with serving(database, 1), serving(database, 10) as node:
        await becomes(node.counts, 11)

        assert await asyncio.gather(*(node.counts() for _ in range(50))) == [11] * 50


async def test_a_node_reports_between_queries(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_node(database) as node:
        monkeypatch.setattr("brain.presence.cluster.REPORT_SECONDS", 0.0)
        slow = (
            "SELECT report_number, pg_sleep(0.02), $1::text FROM brain.nodes"
            f" WHERE id = '{node.cluster.id}'"
        )
        rows = await asyncio.gather(*(node.cluster._run_query((slow, n)) for n in "abcd"))

    numbers = [row["report_number"] for row in rows if row]
    assert len(set(numbers)) == len(numbers) > 1


async def test_a_query_is_not_run_once_its_callers_have_given_up(
    database: str, connection: asyncpg.Connection
) -> None:
    await connection.execute("CREATE TABLE asked (query text)")
    slow = "INSERT INTO asked SELECT $1 FROM pg_sleep(0.2) RETURNING query"
    async with running_node(database) as node:
        calls = [node.cluster._run_query((slow, str(number))) for number in range(20)]
        assert None in await asyncio.gather(*calls)
        await node.reported()

        assert await connection.fetchval("SELECT count(*) FROM asked") < 20


async def test_a_node_reports_its_name_and_leaves_nothing_behind(
    database: str, connection: asyncpg.Connection
) -> None:
    names = "SELECT array_agg(name) FROM brain.nodes"
    async with serving(database, 3):
        name = f"{socket.gethostname()} {os.getpid()}"
        await becomes(lambda: connection.fetchval(names), [name])

    assert await connection.fetchval(names) is None


@pytest.mark.parametrize("seconds_ago", [6, -6], ids=["since then", "since the clock was set back"])
async def test_a_node_that_has_not_reported_for_a_while_is_not_counted(
    database: str, connection: asyncpg.Connection, seconds_ago: float
) -> None:
    dead, alive = uuid4(), uuid4()
    await connection.execute(REPORT, dead, "dead", 1, 5)
    assert await connection.fetchval("SELECT brain.clients_on_other_nodes($1)", alive) == 5
    await last_seen(connection, dead, seconds_ago)

    assert await connection.fetchval("SELECT brain.clients_on_other_nodes($1)", alive) == 0
    assert await connection.fetchval(REPORT, alive, "alive", 1, 1)
    assert await connection.fetchval("SELECT array_agg(name) FROM brain.nodes") == ["alive"]


async def test_without_the_database_a_node_counts_its_own_clients_promptly(
    database: str,
) -> None:
    async with proxy_to(database) as (url, proxy):
        async with serving(database, 1), serving(url, 10) as node:
            await becomes(node.counts, 11)

            proxy.swallow()
            async with asyncio.timeout(PATIENCE_SECONDS):
                assert await node.counts() == 10
            proxy.restore()
            await becomes(node.counts, 11)

    async with serving("postgresql://127.0.0.1:1/nowhere", 10) as node:
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await node.counts() == 10


async def test_an_ordinary_role_that_serves_may_count(postgres: str) -> None:
    async with (
        ordinary_role(postgres, "CREATEROLE") as (role, admin),
        new_database(postgres) as url,
    ):
        await admin.execute(f"ALTER DATABASE {urlsplit(url).path[1:]} OWNER TO {role}")
        await admin.execute(f"GRANT brain_owner, brain_reader TO {role}")
        await migrate(as_role(url, role), every_schema())

        async with serving(as_role(url, role), 1) as one, serving(as_role(url, role), 10):
            await becomes(one.counts, 11)
        left = await asyncpg.connect(url)
        assert await left.fetchval("SELECT count(*) FROM brain.nodes") == 0
        await left.close()
