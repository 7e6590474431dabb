"""Changes that are not sent one by one: the clients of the channel get one `reset`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest
from websockets.asyncio.client import ClientConnection, connect

from tests.end_to_end.brain import RunningBrain, message, messages

TABLE = """
    CREATE TABLE orders (id int PRIMARY KEY, state text);
    INSERT INTO orders VALUES (1, 'new');
    SELECT brain.watch('orders', 'orders', '{id,state}');
"""
BACKFILL = """
    BEGIN;
    INSERT INTO orders VALUES (2, 'before');
    SET LOCAL brain.capture = 'off';
    UPDATE orders SET state = 'old';
    INSERT INTO orders SELECT i, 'old' FROM generate_series(100, 200) i;
    COMMIT;
"""
MANY = """
    INSERT INTO orders SELECT i, repeat('x', 1000) FROM generate_series(1000, 3000) i
"""


@pytest.fixture
def database(shared_database: str) -> str:
    return shared_database


@pytest.fixture
def brain(shared_brain: RunningBrain) -> RunningBrain:
    return shared_brain


@asynccontextmanager
async def client_of(brain: RunningBrain, query: str) -> AsyncIterator[ClientConnection]:
    url = f"ws://localhost:{brain.port}/ws?channel=orders{query}"
    async with connect(url, proxy=None, max_queue=None, max_size=None) as client:
        assert (await message(client))["type"] == "connected"
        yield client


async def test_a_backfill_is_one_reset_for_the_clients_of_its_channel_and_nothing_for_others(
    brain: RunningBrain, connection: asyncpg.Connection
) -> None:
    await connection.execute(TABLE)
    async with client_of(brain, "") as plain, client_of(brain, ":1") as of_a_row:
        async with brain.client() as other:
            await connection.execute(BACKFILL)
            await connection.execute("UPDATE orders SET state = 'live' WHERE id = 1")
            await connection.execute("INSERT INTO tasks (id) VALUES ('x')")

            received = await messages(plain, 3)
            assert [each["type"] for each in received] == [
                "orders_inserted",
                "reset",
                "orders_updated",
            ]
            assert received[1]["data"] == {
                "message": "rows were changed without being sent one by one"
            }
            assert [each["type"] for each in await messages(of_a_row, 2)] == [
                "reset",
                "orders_updated",
            ]
            assert (await message(other))["data"]["id"] == "x"


async def test_a_client_with_a_snapshot_gets_the_rows_again_and_then_what_follows(
    brain: RunningBrain, connection: asyncpg.Connection
) -> None:
    await connection.execute(TABLE)
    async with client_of(brain, "&snapshot") as client:
        assert (await message(client))["data"]["rows"] == [{"id": 1, "state": "new"}]
        await connection.execute(BACKFILL)

        assert (await message(client))["type"] == "orders_inserted"
        assert (await message(client))["type"] == "reset"
        rows = (await message(client))["data"]["rows"]
        assert len(rows) == 103
        assert {row["state"] for row in rows} == {"old"}

        await connection.execute("UPDATE orders SET state = 'live' WHERE id = 1")
        assert (await message(client))["data"] == {"id": 1, "state": "live"}


async def test_a_client_that_resumes_gets_the_reset_at_its_place(
    brain: RunningBrain, connection: asyncpg.Connection
) -> None:
    await connection.execute(TABLE)
    async with client_of(brain, "&cursor=") as client:
        await connection.execute("UPDATE orders SET state = 'a'")
        cursor = (await message(client))["cursor"]
    await connection.execute(BACKFILL)
    await connection.execute("UPDATE orders SET state = 'live' WHERE id = 1")

    async with client_of(brain, f"&cursor={cursor}") as client:
        types = [each["type"] for each in await messages(client, 3)]
        assert types == ["orders_inserted", "reset", "orders_updated"]

    async with client_of(brain, f"&snapshot&cursor={cursor}") as client:
        assert (await message(client))["type"] == "orders_inserted"
        assert (await message(client))["type"] == "reset"
        rows = (await message(client))["data"]["rows"]
        assert {"id": 1, "state": "live"} in rows
        assert len(rows) == 103
