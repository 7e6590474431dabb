"""Brain where no superuser helps: with the rights that the documents name and no more."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
from prometheus_client import CollectorRegistry

from brain.database.connection import opened_pool
from brain.database.migrations import migrate
from brain.database.snapshot import SnapshotReader
from brain.database.table_access import TableAccess
from brain.errors import RightsMissing
from brain.feeds.reader import FeedReader
from brain.message.matching import RowAccess
from brain.metrics.database import DatabaseMetrics
from brain.problems import Problems
from tests.database.log_reading import events_after, parsed, reading
from tests.database.servers import Server, binaries_of, new_server
from tests.schemas import every_schema

pytestmark = pytest.mark.postgres_versions

DOCUMENT = Path(__file__).parents[2] / "docs" / "operating.md"
PREPARATION = re.compile(r"```sql\n(CREATE ROLE brain_service LOGIN.*?)```", re.DOTALL)
# As on a managed server: it may create databases and roles, and is no superuser.
ADMINISTRATOR = "CREATE ROLE administrator LOGIN CREATEROLE CREATEDB"
FEED = """
    SELECT brain.define_feed('open-orders', $$
        SELECT jsonb_agg(id ORDER BY id) FROM orders WHERE status = 'open' $$, '{orders}')
"""


@pytest.fixture
async def server(postgres: str) -> AsyncIterator[Server]:
    """A server that has never had a Brain: roles belong to all its databases."""
    with new_server(await binaries_of(postgres)) as server:
        async with session(server, "postgres", "postgres") as superuser:
            await superuser.execute(ADMINISTRATOR)
        async with session(server, "administrator", "postgres") as administrator:
            await administrator.execute("CREATE DATABASE shop")
        yield server


def url_of(server: Server, role: str, database: str = "shop") -> str:
    return f"postgresql://{role}@{server.address}/{database}"


@asynccontextmanager
async def session(
    server: Server, role: str, database: str = "shop"
) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url_of(server, role, database))
    try:
        yield connection
    finally:
        await connection.close()


async def serves(server: Server, role: str) -> None:
    """Assert that Brain, connected as a role, does all it is for."""
    url = url_of(server, role)
    assert len(await migrate(url, every_schema())) == len(every_schema())
    async with session(server, role) as operator:
        await operator.execute(
            "CREATE TABLE orders (id int PRIMARY KEY, status text, customer text, card text);"
            "SELECT brain.watch('orders', 'orders', '{id,status}');"
            "SELECT brain.restrict('orders', '{\"customer\": \"sub\"}')"
        )
        await operator.execute(FEED.replace("'{orders}'", "'{orders}', row_security => 'ignored'"))
        allowed = await operator.fetchval(
            "SELECT allowed FROM brain.row_access('{orders}', '{\"sub\": \"ann\"}')"
        )
        async with reading(url) as log, opened_pool(url) as pool:
            start = await log.tick()
            await operator.execute(
                "INSERT INTO orders VALUES (1, 'open', 'ann', '4711'), (2, 'open', 'bob', '4712');"
                "INSERT INTO tasks (id) VALUES ('a')"
            )
            assert [event.key_text for event in await events_after(log, start)] == ["1", "2", "a"]
            snapshot = await SnapshotReader(TableAccess(10_000)).read(
                pool, frozenset({"orders", "tasks"}), {"orders": RowAccess(allowed)}
            )
            assert [parsed(row) for row in snapshot.tables["orders"]] == [
                {"id": 1, "status": "open"}
            ]
            assert len(snapshot.tables["tasks"]) == 1
            state = await FeedReader(pool, 10_000, 10).state("open-orders", None)
            assert state is not None and state.text == "[1, 2]"
            problems = Problems()
            await DatabaseMetrics(CollectorRegistry(), 60).read(pool, 10, problems)
            assert problems.recent() == []
        assert not await operator.fetchval(
            "SELECT bool_or(has_any_column_privilege('brain_reader', oid, 'INSERT, UPDATE'))"
            "  FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'"
        )
    assert not await migrate(url, every_schema())


async def test_a_role_that_may_create_roles_sets_all_up_by_itself(server: Server) -> None:
    async with session(server, "administrator") as administrator:
        await administrator.execute("CREATE ROLE brain_service LOGIN CREATEROLE")
        await administrator.execute("GRANT CREATE ON DATABASE shop TO brain_service")
        await administrator.execute("GRANT CREATE ON SCHEMA public TO brain_service")

    await serves(server, "brain_service")


async def test_an_administrator_who_is_no_superuser_prepares_a_role_as_documented(
    server: Server,
) -> None:
    documented = PREPARATION.search(DOCUMENT.read_text(encoding="utf-8"))
    assert documented is not None
    async with session(server, "administrator") as administrator:
        await administrator.execute(documented[1].replace("the_database", "shop"))

    await serves(server, "brain_service")


async def test_an_administrator_who_is_no_superuser_prepares_a_role_as_brain_says(
    server: Server,
) -> None:
    async with session(server, "administrator") as administrator:
        await administrator.execute("CREATE ROLE brain_service LOGIN")
        with pytest.raises(RightsMissing) as missing:
            await migrate(url_of(server, "brain_service"), every_schema())
        await administrator.execute(str(missing.value).partition("can allow it with ")[2])

    await serves(server, "brain_service")
