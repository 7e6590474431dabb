"""brain.v1 on Brains that run as their users run them."""

from __future__ import annotations

from pathlib import Path

import asyncpg

from tests.end_to_end.brain import running_brain
from tests.session.v1_client import v1_client

ORDERS = """
    CREATE TABLE orders (id int PRIMARY KEY, status text);
    SELECT brain.watch('orders', 'orders', '{id,status}');
"""
INSERT = "INSERT INTO orders SELECT n, 'new' FROM generate_series($1::int, $2) n"


async def test_a_client_goes_on_at_another_brain_after_its_own_was_killed(
    tmp_path: Path, database: str, connection: asyncpg.Connection
) -> None:
    await connection.execute(ORDERS)
    async with running_brain(tmp_path, "--database-url", database) as brain:
        async with v1_client(brain.port) as client:
            await client.subscribe("orders", where={"status": "new"}, snapshot=True)
            assert [f["op"] for f in await client.frames(2)] == ["snapshot-end", "live"]
            await connection.execute(INSERT, 1, 2)
            first, second = await client.frames(2)
            assert [first.get("last"), second.get("last")] == [None, True]
            brain.process.kill()
    await connection.execute(INSERT, 3, 3)
    await connection.execute("UPDATE orders SET status = 'paid' WHERE id = 1")

    async with (
        running_brain(tmp_path, "--database-url", database) as brain,
        v1_client(brain.port) as client,
    ):
        answer = await client.subscribe(
            "orders", where={"status": "new"}, snapshot=True, after=second["cursor"]
        )
        missed = await client.frames(3)
        assert [(f["op"], f.get("key")) for f in missed] == [
            ("insert", [3]),
            ("leave", [1]),
            ("live", None),
        ]
        assert {frame["sub"] for frame in missed} == {answer["sub"]}
