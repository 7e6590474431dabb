from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from brain.database.migrations import migrate
from brain.database.schema_files import core_schema
from brain.doctor import locks
from tests.database.servers import binaries_of, new_server
from tests.doctor.examining import found
from tests.end_to_end.brain import PATIENCE_SECONDS
from tests.postgres import as_role, new_database, ordinary_role


@pytest.fixture
async def orders(core_connection: asyncpg.Connection) -> AsyncIterator[asyncpg.Connection]:
    """A connection to a database with the watched table `orders`."""
    await core_connection.execute("CREATE TABLE orders (id int PRIMARY KEY, status text)")
    await core_connection.execute("CREATE TABLE others (id int PRIMARY KEY)")
    await core_connection.execute("SELECT brain.watch('orders', 'orders', '{id,status}')")
    yield core_connection


TABLES = ["orders", "brain.watched", "brain.events_0", "brain.ticks"]


@pytest.mark.parametrize("table", TABLES)
async def test_who_locks_a_table_is_named_without_its_query(
    orders: asyncpg.Connection, core_database: str, table: str
) -> None:
    async with orders.transaction():
        await orders.execute(f"LOCK TABLE {table} /* hidden */ IN ACCESS EXCLUSIVE MODE")
        finding = await found(locks.locks, database_url=core_database)
    after = await found(locks.locks, database_url=core_database)

    pid = orders.get_server_pid()
    assert finding.verdict == "failure"
    assert table in finding.text
    assert f"pid {pid}" in finding.text
    assert f"pg_terminate_backend({pid})" in str(finding.way_out)
    assert "hidden" not in f"{finding}"
    assert after.verdict == "ok"


async def test_a_lock_on_a_table_that_is_not_watched_is_no_problem(
    orders: asyncpg.Connection, core_database: str
) -> None:
    async with orders.transaction():
        await orders.execute("LOCK TABLE others IN ACCESS EXCLUSIVE MODE")
        finding = await found(locks.locks, database_url=core_database)

    assert finding.verdict == "ok"


async def becomes_waiting(connection: asyncpg.Connection, pid: int) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await connection.fetchval("SELECT pg_blocking_pids($1) <> '{}'", pid):
            await asyncio.sleep(0.02)


async def test_a_session_that_waits_for_a_lock_is_not_blamed_but_the_one_that_holds_it_up(
    orders: asyncpg.Connection, core_database: str
) -> None:
    other = await asyncpg.connect(core_database)
    reading = orders.transaction()
    await reading.start()
    await orders.execute("SELECT FROM orders")
    altering = asyncio.create_task(other.execute("ALTER TABLE orders ADD COLUMN more int"))
    await becomes_waiting(orders, other.get_server_pid())
    finding = await found(locks.locks, database_url=core_database)
    await reading.rollback()
    await altering
    await other.close()

    assert finding.verdict == "failure"
    assert "wait behind it" in finding.text
    assert f"pg_terminate_backend({orders.get_server_pid()})" in str(finding.way_out)


async def test_a_transaction_that_stays_open_is_named(
    orders: asyncpg.Connection, core_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "LONG_SECONDS", 0.0)
    idle = await found(locks.transactions, database_url=core_database)
    async with orders.transaction():
        await orders.execute("INSERT INTO orders VALUES (1, 'hidden')")
        finding = await found(locks.transactions, database_url=core_database)

    assert idle.verdict == "ok"
    assert finding.verdict == "warning"
    assert "sent only when it commits" in finding.text
    assert f"pg_terminate_backend({orders.get_server_pid()})" in str(finding.way_out)
    assert "hidden" not in f"{finding}"


async def test_an_ordinary_role_does_not_take_a_transaction_that_it_does_not_see_for_none(
    postgres: str, orders: asyncpg.Connection, core_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "LONG_SECONDS", 0.0)
    async with ordinary_role(postgres) as (role, admin):
        url = as_role(core_database, role)
        idle = await found(locks.transactions, database_url=url)
        async with orders.transaction():
            await orders.execute("INSERT INTO orders VALUES (1, 'open')")
            unseen = await found(locks.transactions, database_url=url)
            await admin.execute(f"GRANT pg_read_all_stats TO {role}")
            seen = await found(locks.transactions, database_url=url)

    assert idle.verdict == "ok"
    assert unseen.verdict == "not checked"
    assert f"pid {orders.get_server_pid()}" in unseen.text
    assert f"GRANT pg_read_all_stats TO {role}" in str(unseen.way_out)
    assert seen.verdict == "warning"


async def test_an_ordinary_role_names_its_own_transaction(
    postgres: str, core_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "LONG_SECONDS", 0.0)
    async with ordinary_role(postgres) as (role, _):
        url = as_role(core_database, role)
        own = await asyncpg.connect(url)
        async with own.transaction():
            await own.execute("SELECT pg_current_xact_id()")
            finding = await found(locks.transactions, database_url=url)
        await own.close()

    assert finding.verdict == "warning"


async def test_a_prepared_transaction_that_holds_up_a_lock_is_what_is_to_be_ended(
    postgres: str,
) -> None:
    with new_server(await binaries_of(postgres), {"max_prepared_transactions": "1"}) as server:
        async with new_database(server.url) as url:
            await migrate(url, [core_schema()])
            holder, other = await asyncpg.connect(url), await asyncpg.connect(url)
            await holder.execute("CREATE TABLE orders (id int PRIMARY KEY)")
            await holder.execute("SELECT brain.watch('orders', 'orders', '{id}')")
            await holder.execute("BEGIN; SELECT FROM orders; PREPARE TRANSACTION 'it''s held'")
            altering = asyncio.create_task(other.execute("ALTER TABLE orders ADD COLUMN more int"))
            await becomes_waiting(holder, other.get_server_pid())
            finding = await found(locks.locks, database_url=url)
            await holder.execute(str(finding.way_out).rpartition(" or ")[2])
            await altering
            await holder.close()
            await other.close()

    assert finding.verdict == "failure"
    assert "it waits for the prepared transaction 'it''s held'" in finding.text
    assert "COMMIT PREPARED 'it''s held'" in str(finding.way_out)
