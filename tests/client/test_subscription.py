"""Subscriptions of the client, on a running Brain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import asyncpg

from brain.client import Brain, Change
from tests.client.following import ORDERS, next_of, ops, up_to
from tests.end_to_end.brain import RunningBrain, running_brain


async def test_a_snapshot_comes_first_then_what_changes(
    shared_brain: RunningBrain, orders: asyncpg.Connection
) -> None:
    await orders.execute("INSERT INTO orders VALUES (1, 'new', 1.5), (2, 'new', 2)")
    async with Brain(shared_brain.http) as brain:
        changes = brain.subscribe("orders", snapshot=True)
        first = await up_to(changes, "live")
        await orders.execute("UPDATE orders SET status = 'paid' WHERE id = 1")
        await orders.execute("DELETE FROM orders WHERE id = 2")
        updated, deleted = await next_of(changes), await next_of(changes)
    assert ops(first) == [("snapshot", 1), ("snapshot", 2), ("snapshot-end", None), ("live", None)]
    assert first[0].row == {"id": 1, "status": "new", "total": 1.5}
    assert updated.op == "update" and updated.last and updated.txid
    assert updated.row == {"id": 1, "status": "paid", "total": 1.5}
    assert updated.old == {"id": 1, "status": "new", "total": 1.5}
    assert (deleted.op, deleted.key, deleted.row) == ("delete", [2], None)


async def test_only_rows_that_match_the_filter_come(
    shared_brain: RunningBrain, orders: asyncpg.Connection
) -> None:
    await orders.execute("INSERT INTO orders VALUES (1, 'new', 1.5), (2, 'paid', 2)")
    async with Brain(shared_brain.http) as brain:
        changes = brain.subscribe("orders", snapshot=True, where={"status": "new"})
        assert ops(await up_to(changes, "live"))[0] == ("snapshot", 1)
        await orders.execute("INSERT INTO orders VALUES (3, 'paid', 1), (4, 'new', 1)")
        await orders.execute("UPDATE orders SET status = 'paid' WHERE id = 1")
        assert ops([await next_of(changes), await next_of(changes)]) == [
            ("insert", 4),
            ("leave", 1),
        ]


async def test_a_client_goes_on_after_its_brain_was_killed_while_rows_change(
    tmp_path: Path, database: str, connection: asyncpg.Connection
) -> None:
    await connection.execute(ORDERS)
    got: list[Change[Any]] = []
    async with running_brain(tmp_path, "--database-url", database) as server:
        port = server.port
        client = Brain(server.http)
        brain = await client.__aenter__()
        changes = brain.subscribe("orders", snapshot=True)
        await up_to(changes, "live")
        for number in range(20):
            await connection.execute("INSERT INTO orders VALUES ($1, 'new', 1)", number)
        got += [await next_of(changes) for _ in range(10)]
        server.process.kill()
    for number in range(20, 30):
        await connection.execute("INSERT INTO orders VALUES ($1, 'new', 1)", number)
    options = ("--database-url", database, "--port", str(port))
    async with running_brain(tmp_path, *options):
        while len(got) < 30:
            change = await next_of(changes)
            if change.op != "live":
                got.append(change)
        await client.__aexit__(None, None, None)
    assert ops(got) == [("insert", number) for number in range(30)]
