"""The TypeScript client against a Brain that runs as its users run it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from tests.clients.typescript_program import CLIENT, TypeScriptProgram, bundled, typescript_program
from tests.end_to_end.brain import RunningBrain, running_brain

ORDERS = """
    CREATE TABLE orders (id int PRIMARY KEY, status text, total numeric);
    SELECT brain.watch('orders', 'orders', '{id,status,total}');
"""
TRANSPORTS = ("websocket", "sse")


@pytest.fixture(scope="session")
async def script(node_packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("program")
    return await bundled(CLIENT / "test" / "program.ts", folder, node_packages)


@pytest.fixture
async def program(script: Path, tmp_path: Path) -> AsyncIterator[TypeScriptProgram]:
    async with typescript_program(script, tmp_path) as program:
        yield program


@pytest.fixture
async def orders(
    shared_brain: RunningBrain, shared_database: str
) -> AsyncIterator[asyncpg.Connection]:
    """A connection to a database in which orders are watched."""
    connection = await asyncpg.connect(shared_database)
    await connection.execute(ORDERS)
    yield connection
    await connection.close()


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_collection_has_the_rows_of_the_table_whatever_happens_to_them(
    shared_brain: RunningBrain,
    orders: asyncpg.Connection,
    program: TypeScriptProgram,
    transport: str,
) -> None:
    await orders.execute("INSERT INTO orders VALUES (1, 'new', 1.50), (2, 'new', 2)")
    program.command("create", shared_brain.http, {"transport": transport})
    program.command("collection", "all", "orders", {})
    program.command("collection", "paid", "orders", {"where": {"status": "paid"}})
    await program.shows("all", await rows(orders))
    await program.is_live()

    await orders.execute("INSERT INTO orders VALUES (3, 'paid', 3)")
    await orders.execute("UPDATE orders SET status = 'paid' WHERE id = 1")
    await orders.execute("DELETE FROM orders WHERE id = 2")
    await program.shows("all", await rows(orders))
    await program.shows("paid", await rows(orders, "status = 'paid'"))

    await orders.execute("UPDATE orders SET status = 'late' WHERE id = 1")
    await program.shows("paid", await rows(orders, "status = 'paid'"))
    await orders.execute("TRUNCATE orders")
    await program.shows("all", [])
    await program.shows("paid", [])


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_client_whose_brain_is_killed_goes_on_where_it_was(
    tmp_path: Path,
    database: str,
    connection: asyncpg.Connection,
    program: TypeScriptProgram,
    transport: str,
) -> None:
    await connection.execute(ORDERS)
    options = ("--database-url", database)
    async with running_brain(tmp_path, *options) as brain:
        program.command("create", brain.http, {"transport": transport})
        program.command("collection", "all", "orders", {})
        program.command("subscribe", "each", "orders", {"snapshot": True})
        await program.is_live()
        await connection.execute("INSERT INTO orders VALUES (1, 'new', 1)")
        await program.shows("all", await rows(connection))
        brain.process.kill()
        await program.comes_to(lambda: program.status["state"] != "live")
    await connection.execute("INSERT INTO orders VALUES (2, 'new', 2)")
    await connection.execute("DELETE FROM orders WHERE id = 1")
    async with running_brain(tmp_path, *options, "--port", str(brain.port)):
        await program.shows("all", await rows(connection))
        await connection.execute("INSERT INTO orders VALUES (3, 'new', 3)")
        await program.shows("all", await rows(connection))
        await program.comes_to(lambda: len(keys(program, "each")) >= 4)
    assert keys(program, "each") == [("insert", 1), ("insert", 2), ("delete", 1), ("insert", 3)]


def keys(program: TypeScriptProgram, name: str) -> list[tuple[str, int]]:
    """Return what has happened to which row."""
    return [(one["op"], one["key"][0]) for one in program.changes(name) if "key" in one]


async def rows(connection: asyncpg.Connection, condition: str = "true") -> list[dict[str, object]]:
    """Return the rows of the table as the client should show them."""
    found = await connection.fetch(f"SELECT * FROM orders WHERE {condition}")
    return [{**row, "total": float(row["total"])} for row in found]
