"""What clients of a running Brain see of tables that are locked, unknown or large."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import orjson
import pytest
from websockets.exceptions import ConnectionClosed

from tests.database.locks import locked
from tests.end_to_end.brain import RunningBrain, get, message

ORDERS = """
    CREATE TABLE orders (id int PRIMARY KEY, amount numeric);
    SELECT brain.watch('orders', 'orders', '{id,amount}');
    INSERT INTO orders VALUES (1, 12345678901234567890.10);
"""


@pytest.fixture(scope="module")
def brain_settings() -> dict[str, str]:
    return {"BRAIN_TABLE_TIMEOUT_SECONDS": "0.5"}


@pytest.fixture
async def shared(shared_brain: RunningBrain, shared_database: str) -> RunningBrain:
    connection = await asyncpg.connect(shared_database)
    await connection.execute(ORDERS)
    await connection.close()
    return shared_brain


async def parts(brain: RunningBrain, path: str) -> list[dict[str, Any]]:
    """Return the data of the messages of a snapshot."""
    async with brain.client(path) as client:
        received = [await message(client)]
        while received[-1]["data"]["more"]:
            received.append(await message(client))
    assert all(each["type"] == "snapshot" for each in received)
    return [each["data"] for each in received]


async def test_a_channel_without_a_table_has_an_empty_part_of_its_own_name(
    shared: RunningBrain,
) -> None:
    (part,) = await parts(shared, "/ws?channel=nope&snapshot")
    assert part == {"channel": "nope", "rows": [], "more": False}

    named = await parts(shared, "/ws?channel=orders&channel=nope&channel=zebra&snapshot")
    assert [(part["channel"], len(part["rows"])) for part in named] == [
        ("nope", 0),
        ("orders", 1),
        ("zebra", 0),
    ]


async def test_a_locked_table_closes_those_who_ask_for_it_with_the_reason(
    shared: RunningBrain, shared_database: str
) -> None:
    async with locked(shared_database, "orders"):
        status, body = await get(f"{shared.http}/api/brain/snapshot/orders")
        assert status == 503
        assert orjson.loads(body) == {"error": "orders cannot be read: it is locked"}
        async with shared.client("/ws?channel=orders&snapshot") as client:
            with pytest.raises(ConnectionClosed):
                await message(client)
            assert (client.close_code, client.close_reason) == (
                4010,
                "orders cannot be read: it is locked",
            )
        assert (await parts(shared, "/ws?channel=tasks&snapshot"))[0]["channel"] == "tasks"
        _, ready = await get(f"{shared.http}/readyz")
        assert "orders cannot be read: it is locked" in ready
    (part,) = await parts(shared, "/ws?channel=orders&snapshot")
    assert len(part["rows"]) == 1


async def test_a_snapshot_over_http_is_sent_in_pieces_with_every_digit(
    shared: RunningBrain, shared_database: str
) -> None:
    _, body = await get(f"{shared.http}/api/brain/snapshot/orders")
    assert '{"id" : 1, "amount" : 12345678901234567890.10}' in body

    connection = await asyncpg.connect(shared_database)
    await connection.execute("INSERT INTO orders SELECT g, g FROM generate_series(2, 2500) g")
    status, body = await get(f"{shared.http}/api/brain/snapshot/orders")
    assert status == 200
    found = orjson.loads(body)
    assert list(found) == ["channel", "cursor", "rows"]
    assert sorted(row["id"] for row in found["rows"]) == list(range(1, 2501))

    await connection.execute("TRUNCATE orders")
    _, body = await get(f"{shared.http}/api/brain/snapshot/orders")
    assert orjson.loads(body)["rows"] == []
    assert (await get(f"{shared.http}/api/brain/snapshot/nope"))[0] == 404
    await connection.close()


async def test_the_tasks_of_the_page_have_every_digit_and_a_locked_table_is_named(
    shared: RunningBrain, shared_database: str
) -> None:
    connection = await asyncpg.connect(shared_database)
    await connection.execute(
        """
        INSERT INTO tasks (id, title, payload)
        VALUES ('a', 'A', '{"total_steps": 12345678901234567890.10, "step_name": "1e400"}')
        """
    )
    _, body = await get(f"{shared.http}/api/brain/tasks")
    assert "12345678901234567890.10" in body
    (task,) = orjson.loads(body)["tasks"]
    assert (task["id"], task["title"], task["step_name"]) == ("a", "A", "1e400")
    async with locked(shared_database, "tasks"):
        answers = await asyncio.gather(*(get(f"{shared.http}/api/brain/tasks") for _ in range(30)))
        for status, body in answers:
            assert (status, orjson.loads(body)) == (
                503,
                {"error": "tasks cannot be read: it waited too long for a lock"},
            )
        assert (await get(f"{shared.http}/api/brain/snapshot/orders"))[0] == 200
    await connection.close()
