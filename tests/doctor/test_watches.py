from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from brain.doctor import watches
from tests.doctor.examining import found
from tests.postgres import ordinary_role

TABLE = "CREATE TABLE orders (id int PRIMARY KEY, status text, total numeric)"
WATCH = "SELECT brain.watch('orders', 'orders', '{id,status}')"


@pytest.fixture
async def orders(core_connection: asyncpg.Connection) -> AsyncIterator[asyncpg.Connection]:
    """A connection to a database with the watched table `orders`."""
    await core_connection.execute(TABLE)
    await core_connection.execute(WATCH)
    yield core_connection


async def test_a_database_without_a_watch_says_how_to_watch_a_table(core_database: str) -> None:
    finding = await found(watches.present, database_url=core_database)

    assert finding.verdict == "warning"
    assert "brain watch" in str(finding.way_out)


async def test_watched_tables_are_listed_and_have_no_problem(
    orders: asyncpg.Connection, core_database: str
) -> None:
    present = await found(watches.present, database_url=core_database)
    assert (present.verdict, present.facts["channels"]) == ("ok", ["orders"])
    for check in (watches.tables, watches.triggers, watches.problems):
        assert (await found(check, database_url=core_database)).verdict == "ok"


TRIGGERS = [
    ("ALTER TABLE orders DISABLE TRIGGER ALL", "is disabled", "ENABLE TRIGGER"),
    ("ALTER TABLE orders DISABLE TRIGGER USER", "is disabled", "ENABLE TRIGGER"),
    ('ALTER TABLE orders ENABLE REPLICA TRIGGER "{row}"', "ENABLE REPLICA", "ENABLE TRIGGER"),
    ('DROP TRIGGER "{row}" ON orders', "missing", "brain watch"),
]


@pytest.mark.parametrize(("change", "text", "way_out"), TRIGGERS)
async def test_a_trigger_that_does_not_fire_is_named_and_the_way_out_ends_it(
    orders: asyncpg.Connection, core_database: str, change: str, text: str, way_out: str
) -> None:
    number = await orders.fetchval("SELECT id FROM brain.watched")
    await orders.execute(change.format(row=f"!brain_1_row_{number}"))
    finding = await found(watches.triggers, database_url=core_database)

    assert finding.verdict == "failure"
    assert text in finding.text
    assert way_out in str(finding.way_out)

    statements = str(finding.way_out).partition("; or brain watch")[0]
    await orders.execute(WATCH if statements.startswith("brain watch") else statements)
    assert (await found(watches.triggers, database_url=core_database)).verdict == "ok"


async def test_a_disabled_trigger_of_a_replicated_watch_is_enabled_always(
    orders: asyncpg.Connection, core_database: str
) -> None:
    await orders.execute("SELECT brain.watch('orders', 'orders', '{id}', replicated => true)")
    await orders.execute("ALTER TABLE orders DISABLE TRIGGER ALL")
    finding = await found(watches.triggers, database_url=core_database)

    assert finding.verdict == "failure"
    await orders.execute(str(finding.way_out).partition("; or brain watch")[0])
    assert (await found(watches.triggers, database_url=core_database)).verdict == "ok"


async def test_a_session_replication_role_for_all_sessions_is_named(
    orders: asyncpg.Connection, core_database: str
) -> None:
    database = await orders.fetchval("SELECT current_database()")
    await orders.execute(f"ALTER DATABASE {database} SET session_replication_role = replica")
    finding = await found(watches.triggers, database_url=core_database)

    assert finding.verdict == "failure"
    command = f"ALTER DATABASE {database} RESET session_replication_role"
    assert str(finding.way_out).startswith(command)
    await orders.execute(command)
    assert (await found(watches.triggers, database_url=core_database)).verdict == "ok"


async def test_a_table_that_was_dropped_or_replaced_is_named(
    orders: asyncpg.Connection, core_database: str
) -> None:
    await orders.execute("ALTER TABLE orders RENAME TO old_orders")
    await orders.execute(TABLE)
    replaced = await found(watches.tables, database_url=core_database)
    await orders.execute("DROP TABLE old_orders, orders")
    dropped = await found(watches.tables, database_url=core_database)

    assert (replaced.verdict, dropped.verdict) == ("failure", "failure")
    assert "which is not watched" in replaced.text
    assert "was dropped" in dropped.text


async def test_another_problem_of_a_watch_is_a_warning(
    orders: asyncpg.Connection, core_database: str
) -> None:
    await orders.execute("ALTER TABLE orders DROP COLUMN status")
    finding = await found(watches.problems, database_url=core_database)

    assert finding.verdict == "warning"
    assert "no column status any more" in finding.text
    assert "brain watch" in finding.text


async def test_watches_of_a_database_without_brain_are_not_checked(empty: str) -> None:
    finding = await found(watches.triggers, database_url=empty)

    assert finding.verdict == "not checked"
    assert finding.way_out == "see database.migrations"


async def test_a_session_replication_role_of_one_role_is_a_warning(
    postgres: str, orders: asyncpg.Connection, core_database: str
) -> None:
    async with ordinary_role(postgres) as (role, admin):
        await admin.execute(f"ALTER ROLE {role} SET session_replication_role = replica")
        finding = await found(watches.triggers, database_url=core_database)
        await admin.execute(str(finding.way_out).partition(";")[0])
        after = await found(watches.triggers, database_url=core_database)

    assert (finding.verdict, after.verdict) == ("warning", "ok")
    assert role in finding.text
