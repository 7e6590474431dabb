"""The TypeScript client against a Brain that runs as its users run it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import jwt
import pytest

from tests.clients.blocking import without_websockets
from tests.clients.typescript_program import CLIENT, TypeScriptProgram, bundled, typescript_program
from tests.end_to_end.brain import RunningBrain, running_brain

ORDERS = """
    CREATE TABLE orders (id int PRIMARY KEY, status text, total numeric);
    SELECT brain.watch('orders', 'orders', '{id,status,total}');
"""
SECRET = "0123456789abcdef0123456789abcdef"
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


async def test_a_client_publishes_sets_its_presence_and_waits_for_a_transaction(
    shared_brain: RunningBrain, orders: asyncpg.Connection, program: TypeScriptProgram
) -> None:
    program.command("token", "ann")
    program.command("create", shared_brain.http, {"transport": "websocket"})
    program.command("collection", "all", "orders", {})
    program.command("subscribe", "news", "news", {})
    await program.is_live()
    async with orders.transaction():
        await orders.execute("INSERT INTO orders VALUES (1, 'new', 1)")
        txid = await orders.fetchval("SELECT pg_current_xact_id()::text")
    program.command("until", txid)
    await program.comes_to(lambda: program.answers("until"))
    assert program.answers("until") == [{"done": "until", "answer": None}]
    assert [one["id"] for one in program.named("all")[-1]["rows"]] == [1]
    program.command("publish", "news", "greeting", {"text": "hello"})
    await program.comes_to(lambda: program.changes("news") and program.answers("publish"))
    (change,) = program.changes("news")
    assert (change["op"], change["type"], change["data"]) == (
        "message",
        "greeting",
        {"text": "hello"},
    )
    assert program.answers("publish")[0]["answer"]["txid"] == change["txid"]
    program.command("set", "away")
    await program.comes_to(lambda: program.answers("set") == [{"done": "set", "answer": None}])


async def test_a_subscription_that_is_refused_harms_no_other(
    shared_brain: RunningBrain, orders: asyncpg.Connection, program: TypeScriptProgram
) -> None:
    for transport in TRANSPORTS:
        program.command("create", shared_brain.http, {"transport": transport})
        program.command("subscribe", f"{transport}-bad", "orders", {"where": {"nothing": 1}})
        program.command("collection", f"{transport}-good", "orders", {})
        await program.shows(f"{transport}-good", await rows(orders))
        await program.comes_to(lambda name=f"{transport}-bad": program.named(name))  # type: ignore[misc]
        (refused,) = program.named(f"{transport}-bad")
        assert "nothing" in refused["error"]["message"]
        await orders.execute("INSERT INTO orders SELECT count(*), 'new', 1 FROM orders")
        await program.shows(f"{transport}-good", await rows(orders))
        program.command("close")


async def test_an_iterator_goes_on_after_the_last_change_that_was_handled(
    shared_brain: RunningBrain, orders: asyncpg.Connection, program: TypeScriptProgram
) -> None:
    program.command("create", shared_brain.http, {})
    program.command("changes", "first", "orders", {"name": "worker"}, 3)
    await program.is_live()
    for id in (1, 2, 3, 4):
        await orders.execute("INSERT INTO orders VALUES ($1, 'new', 1)", id)
    await program.comes_to(lambda: program.answers("changes"))
    assert [key for _, key in keys(program, "first")] == [1, 2, 3]
    # The third was not asked beyond: at least once.
    program.command("changes", "second", "orders", {"name": "worker"}, 2)
    await program.comes_to(lambda: len(program.answers("changes")) == 2)
    assert [key for _, key in keys(program, "second")] == [3, 4]


async def test_equal_subscriptions_to_a_channel_each_get_everything(
    shared_brain: RunningBrain, orders: asyncpg.Connection, program: TypeScriptProgram
) -> None:
    await orders.execute("INSERT INTO orders VALUES (1, 'new', 1)")
    program.command("create", shared_brain.http, {"transport": "websocket"})
    program.command("subscribe", "plain", "orders", {})
    program.command("collection", "all", "orders", {})
    program.command("subscribe", "rows", "orders", {"snapshot": True})
    program.command("subscribe", "named", "orders", {"name": "worker"})
    program.command("subscribe", "equal", "orders", {"where": {"id": {"gt": 0}}})
    program.command("subscribe", "alike", "orders", {"where": {"and": [{"id": {"gt": 0}}]}})
    await program.shows("all", await rows(orders))
    await program.is_live()
    await orders.execute("INSERT INTO orders VALUES (2, 'new', 2)")
    await orders.execute("INSERT INTO orders VALUES (3, 'new', 2)")
    await program.shows("all", await rows(orders))
    for name in ("plain", "named", "equal", "alike"):
        await program.comes_to(lambda name=name: len(keys(program, name)) >= 2)  # type: ignore[misc]
        assert keys(program, name) == [("insert", 2), ("insert", 3)], name
    await program.comes_to(lambda: len(keys(program, "rows")) >= 3)
    assert keys(program, "rows") == [("snapshot", 1), ("insert", 2), ("insert", 3)]


async def test_a_client_behind_a_proxy_without_websockets_goes_over_to_sse(
    shared_brain: RunningBrain, orders: asyncpg.Connection, program: TypeScriptProgram
) -> None:
    async with without_websockets(shared_brain.port) as port:
        program.command("create", f"http://localhost:{port}", {})
        program.command("collection", "all", "orders", {})
        await orders.execute("INSERT INTO orders VALUES (1, 'new', 1)")
        await program.shows("all", await rows(orders))
        await orders.execute("INSERT INTO orders VALUES (2, 'new', 1)")
        await program.shows("all", await rows(orders))
        program.command("close")


def token(user: str, seconds: float) -> str:
    return jwt.encode({"sub": user, "exp": time.time() + seconds, "channels": ["*"]}, SECRET)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_client_whose_token_expires_goes_on_with_the_next(
    tmp_path: Path,
    database: str,
    connection: asyncpg.Connection,
    program: TypeScriptProgram,
    transport: str,
) -> None:
    await connection.execute(ORDERS)
    options = ("--database-url", database)
    async with running_brain(tmp_path, *options, BRAIN_JWT_SECRET=SECRET) as brain:
        program.command("token", token("ann", 4))
        program.command("create", brain.http, {"transport": transport})
        program.command("subscribe", "each", "orders", {"snapshot": True})
        await program.is_live()
        # The same token is refused; it is asked for again.
        await program.comes_to(lambda: program.status["state"] != "live")
        await connection.execute("INSERT INTO orders VALUES (1, 'new', 1)")
        program.command("token", token("ann", 600))
        await program.is_live()
        await connection.execute("INSERT INTO orders VALUES (2, 'new', 1)")
        await program.comes_to(lambda: len(keys(program, "each")) == 2)
        assert keys(program, "each") == [("insert", 1), ("insert", 2)]


async def test_a_token_is_renewed_before_it_expires_on_the_connection_that_it_is_for(
    tmp_path: Path, database: str, connection: asyncpg.Connection, program: TypeScriptProgram
) -> None:
    await connection.execute(ORDERS)
    options = ("--database-url", database)
    async with running_brain(tmp_path, *options, BRAIN_JWT_SECRET=SECRET) as brain:
        expires = time.time() + 5
        program.command("token", token("ann", 5))
        program.command("create", brain.http, {"transport": "websocket"})
        program.command("subscribe", "each", "orders", {})
        await program.is_live()
        program.command("token", token("ann", 600))
        await program.comes_to(lambda: time.time() > expires + 1)
        await connection.execute("INSERT INTO orders VALUES (1, 'new', 1)")
        await program.comes_to(lambda: keys(program, "each") == [("insert", 1)])
        states = [one["status"]["state"] for one in program.printed if "status" in one]
        assert states == ["offline", "connecting", "catching-up", "live"]


def keys(program: TypeScriptProgram, name: str) -> list[tuple[str, int]]:
    """Return what has happened to which row."""
    return [(one["op"], one["key"][0]) for one in program.changes(name) if "key" in one]


async def rows(connection: asyncpg.Connection, condition: str = "true") -> list[dict[str, object]]:
    """Return the rows of the table as the client should show them."""
    found = await connection.fetch(f"SELECT * FROM orders WHERE {condition}")
    return [{**row, "total": float(row["total"])} for row in found]
