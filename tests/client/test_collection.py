"""Collections of the client, on a running Brain."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from pydantic import BaseModel

from brain.client import Brain, InvalidRow, Refused
from tests.client.following import ORDERS, PATIENCE_SECONDS
from tests.end_to_end.brain import RunningBrain, becomes, running_brain

TXID = "SELECT pg_current_xact_id()::text"


class Order(BaseModel):
    id: int
    status: str
    total: Decimal


async def test_a_collection_has_the_rows_and_keeps_them_up(
    shared_brain: RunningBrain, orders: asyncpg.Connection
) -> None:
    await orders.execute("INSERT INTO orders VALUES (1, 'new', 1), (2, 'new', 2), (3, 'late', 3)")
    async with Brain(shared_brain.http) as brain:
        rows = await brain.collection("orders", where={"status": "new"}, model=Order)
        assert {order.id for order in rows.rows} == {1, 2}
        async with orders.transaction():
            await orders.execute("UPDATE orders SET status = 'paid' WHERE id = 1")
            await orders.execute("UPDATE orders SET total = 2.50 WHERE id = 2")
            await orders.execute("UPDATE orders SET status = 'new' WHERE id = 3")
            txid = await orders.fetchval(TXID)
        await brain.until(txid)
        assert (len(rows), 1 in rows, rows.get(1)) == (2, False, None)
        assert rows[2] == Order(id=2, status="new", total=Decimal("2.50"))
        assert str(rows[2].total) == "2.50"


async def test_a_transaction_shows_as_a_whole(
    shared_brain: RunningBrain, orders: asyncpg.Connection
) -> None:
    await orders.execute("INSERT INTO orders SELECT n, 'new', 1 FROM generate_series(1, 5000) n")
    async with Brain(shared_brain.http) as brain:
        rows = await brain.collection("orders")
        updates = rows.updates()
        for key, status in ((-1, "late"), (-2, "paid")):
            await orders.execute("UPDATE orders SET status = $1", status)
            await orders.execute("INSERT INTO orders VALUES ($1, $2, 1)", key, status)
        seen = set[tuple[str, int]]()
        async with asyncio.timeout(PATIENCE_SECONDS):
            while ("paid", 5002) not in seen:
                rows = await anext(updates)
                [status] = {row["status"] for row in rows.rows if row["id"] > 0}
                seen.add((status, len(rows)))
    between = {("new", 5000), ("late", 5000), ("late", 5001), ("paid", 5001), ("paid", 5002)}
    assert seen <= between


async def test_the_rows_stay_until_they_are_loaded_anew(
    shared_brain: RunningBrain, orders: asyncpg.Connection
) -> None:
    await orders.execute("INSERT INTO orders SELECT n, 'new', 1 FROM generate_series(1, 3000) n")
    async with Brain(shared_brain.http) as brain:
        rows = await brain.collection("orders")
        sizes: list[int] = []

        async def watch() -> None:
            async for each in rows.updates():
                sizes.append(len(each))

        task = asyncio.create_task(watch())
        async with orders.transaction():
            await orders.execute("SET LOCAL brain.capture = off")
            await orders.execute("DELETE FROM orders WHERE id > 2000")
        await becomes(lambda: sizes and sizes[-1] == 2000)
        task.cancel()
        await asyncio.wait({task})
    assert sizes == [2000]


async def test_a_collection_is_right_after_its_brain_was_killed(
    tmp_path: Path, database: str, connection: asyncpg.Connection
) -> None:
    await connection.execute(ORDERS)
    await connection.execute("INSERT INTO orders VALUES (1, 'new', 1), (2, 'new', 1)")
    async with running_brain(tmp_path, "--database-url", database) as server:
        port = server.port
        client = Brain(server.http)
        brain = await client.__aenter__()
        rows = await brain.collection("orders")
        server.process.kill()
    assert len(rows) == 2
    await connection.execute("DELETE FROM orders WHERE id = 1")
    async with connection.transaction():
        await connection.execute("INSERT INTO orders VALUES (3, 'new', 1)")
        txid = await connection.fetchval(TXID)
    async with running_brain(tmp_path, "--database-url", database, "--port", str(port)):
        async with asyncio.timeout(PATIENCE_SECONDS):
            await brain.until(txid)
        assert {row["id"] for row in rows.rows} == {2, 3}
        await client.__aexit__(None, None, None)


async def test_a_row_that_does_not_fit_is_not_shown_and_reported(
    shared_brain: RunningBrain, orders: asyncpg.Connection
) -> None:
    await orders.execute("INSERT INTO orders VALUES (1, 'new', 1), (2, 'new', 1)")
    async with Brain(shared_brain.http) as brain:
        rows = await brain.collection("orders", model=Order)
        updates = rows.updates()
        await orders.execute("UPDATE orders SET total = NULL WHERE id = 1")
        with pytest.raises(InvalidRow, match=r"orders with the key \[1\].*total"):
            await anext(updates)
        assert [order.id for order in rows.rows] == [2]
        await orders.execute("UPDATE orders SET total = 7 WHERE id = 1")
        await anext(updates)
        assert rows[1].total == 7


async def test_a_refused_collection_raises(
    shared_brain: RunningBrain, orders: asyncpg.Connection
) -> None:
    async with Brain(shared_brain.http) as brain:
        with pytest.raises(Refused, match="no column nosuch") as refused:
            await brain.collection("orders", where={"nosuch": 1})
    assert refused.value.code == "invalid_filter"


async def test_until_raises_for_a_transaction_that_was_rolled_back(
    shared_brain: RunningBrain, orders: asyncpg.Connection
) -> None:
    transaction: Any = orders.transaction()
    await transaction.start()
    txid = await orders.fetchval(TXID)
    await transaction.rollback()
    async with Brain(shared_brain.http) as brain:
        await brain.collection("orders")
        with pytest.raises(Refused) as refused:
            await brain.until(txid)
    assert refused.value.code == "rolled_back"
