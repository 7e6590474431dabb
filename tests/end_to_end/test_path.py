"""From a committed change to every connected client."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import asyncpg
import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from tests.end_to_end.brain import RunningBrain, get, message, messages

ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


@pytest.fixture
def database(shared_database: str) -> str:
    return shared_database


@pytest.fixture
def brain(shared_brain: RunningBrain) -> RunningBrain:
    return shared_brain


async def next_run(client: ClientConnection) -> tuple[str, str]:
    """Return the type of the next message, and the id of its task."""
    received = await message(client)
    return received["type"], received["data"]["id"]


async def nothing_more(client: ClientConnection) -> bool:
    """Return True if the next message that a client gets is the echo of what it sends now."""
    await client.send('{"ping": 1}')
    return bool((await message(client))["type"] == "echo")


async def test_the_life_of_a_task_is_sent_as_the_protocol_prints_it(
    brain: RunningBrain, connection: asyncpg.Connection
) -> None:
    async with brain.client() as client:
        for statement in (
            "INSERT INTO tasks (id, agent) VALUES ('task-123', 'dev')",
            "UPDATE tasks SET status='running', updated_at=NOW() WHERE id='task-123'",
            "UPDATE tasks SET progress=5 WHERE id='task-123'",
            "UPDATE tasks SET status='completed', progress=11 WHERE id='task-123'",
            "UPDATE tasks SET status='failed', error='Build failed' WHERE id='task-123'",
            "DELETE FROM tasks WHERE id='task-123'",
        ):
            await connection.execute(statement)

        received = await messages(client, 6)

    assert [each["type"] for each in received] == [
        *("run_update", "run_update", "run_update"),
        *("run_complete", "run_failed", "run_deleted"),
    ]
    keys = "id status progress task_id agent started_at completed_at error".split()
    assert all(list(each) == ["type", "data", "timestamp"] for each in received)
    assert all(list(each["data"]) == keys for each in received)
    assert all(ISO.fullmatch(each["timestamp"]) for each in received)
    assert ISO.fullmatch(received[1]["data"]["started_at"])
    assert received[2]["data"] | {"started_at": None} == {
        "id": "task-123",
        "status": "in_progress",
        "progress": 5,
        "task_id": "task-123",
        "agent": "dev",
        "started_at": None,
        "completed_at": None,
        "error": None,
    }
    assert '"progress":5,' in json.dumps(received[2], separators=(",", ":"))


async def test_every_client_gets_every_change(
    brain: RunningBrain, connection: asyncpg.Connection
) -> None:
    async with brain.client() as one, brain.client() as two, brain.client() as three:
        await connection.execute("INSERT INTO tasks (id) VALUES ('a')")

        for client in (one, two, three):
            assert await next_run(client) == ("run_update", "a")


async def test_an_invisible_change_is_not_sent(
    brain: RunningBrain, connection: asyncpg.Connection
) -> None:
    async with brain.client() as client:
        await connection.execute("INSERT INTO tasks (id, status) VALUES ('a', 'running')")
        assert await next_run(client) == ("run_update", "a")
        for unseen in (
            "title = 'x'",
            "updated_at = now()",
            "payload = '{\"a\": 1}'",
            "status = 'running'",
            "status = 'in_progress'",
        ):
            await connection.execute(f"UPDATE tasks SET {unseen}")
        await connection.execute("UPDATE tasks SET progress = 1 WHERE id = 'missing'")
        await connection.execute("UPDATE tasks SET progress = 7")

        received = await message(client)
        assert received["data"]["progress"] == 7


async def test_a_row_larger_than_a_notification_is_sent_whole(
    brain: RunningBrain, connection: asyncpg.Connection
) -> None:
    async with brain.client() as client:
        for size in (9_000, 80_000):
            text = "€" * size
            await connection.execute(
                "INSERT INTO tasks (id, status, error) VALUES ($1, 'failed', $2)", str(size), text
            )

            received = await message(client)

            assert received["type"] == "run_failed"
            assert received["data"]["error"] == text
            assert "omitted" not in received


async def test_a_value_that_is_too_large_is_named_instead_of_sent(
    brain: RunningBrain, connection: asyncpg.Connection
) -> None:
    async with brain.client() as client:
        await connection.execute(
            "INSERT INTO tasks (id, status, error) VALUES ('a', 'failed', repeat('€', 100000))"
        )

        received = await message(client)

    assert (received["type"], received["data"]["id"]) == ("run_failed", "a")
    assert received["data"]["error"] is None
    assert received["omitted"] == ["error"]


async def test_ten_thousand_updates_in_one_transaction_are_all_sent_in_order(
    brain: RunningBrain, connection: asyncpg.Connection
) -> None:
    async with brain.client() as client:
        await connection.execute("INSERT INTO tasks (id) VALUES ('a')")
        assert await next_run(client) == ("run_update", "a")
        async with connection.transaction():
            numbers = [(number,) for number in range(1, 10_001)]
            await connection.executemany("UPDATE tasks SET progress = $1", numbers)

        received = await messages(client, 10_000)

        assert [(each["data"]["progress"],) for each in received] == numbers
        assert await nothing_more(client)


async def test_a_rolled_back_transaction_is_never_sent(
    brain: RunningBrain, connection: asyncpg.Connection
) -> None:
    async with brain.client() as client:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("INSERT INTO tasks (id) VALUES ('never')")
        await transaction.rollback()
        await connection.execute("INSERT INTO tasks (id) VALUES ('after')")

        assert await next_run(client) == ("run_update", "after")


async def test_a_truncate_is_sent_once(brain: RunningBrain, connection: asyncpg.Connection) -> None:
    async with brain.client() as client:
        await connection.execute("INSERT INTO tasks (id) VALUES ('a'), ('b')")
        assert await next_run(client) == ("run_update", "a")
        assert await next_run(client) == ("run_update", "b")
        await connection.execute("TRUNCATE tasks")

        assert (await message(client))["type"] == "run_truncated"
        assert await nothing_more(client)


async def test_a_renamed_task_is_a_deletion_and_an_update(
    brain: RunningBrain, connection: asyncpg.Connection
) -> None:
    async with brain.client() as client:
        await connection.execute("INSERT INTO tasks (id, status) VALUES ('a', 'completed')")
        assert await next_run(client) == ("run_complete", "a")
        await connection.execute("UPDATE tasks SET id = 'b'")

        assert await next_run(client) == ("run_deleted", "a")
        assert await next_run(client) == ("run_update", "b")


async def test_a_message_is_echoed_to_its_sender_alone(brain: RunningBrain) -> None:
    async with brain.client() as client, brain.client() as other:
        await client.send('{"test": "Hello Brain"}')

        received = await message(client)
        assert (received["type"], received["data"]) == ("echo", {"test": "Hello Brain"})
        assert ISO.fullmatch(received["timestamp"])
        assert await nothing_more(other)


@pytest.mark.parametrize(("sent", "code"), [(b"binary", 1003), ("x" * 65_537, 1009)])
async def test_a_message_that_is_not_allowed_closes_the_connection_with_a_code(
    brain: RunningBrain, sent: Any, code: int
) -> None:
    async with brain.client() as client:
        await client.send(sent)

        with pytest.raises(ConnectionClosed) as closed:
            await message(client)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == code
    async with brain.client():
        pass


async def test_the_status_is_printed_as_the_protocol_prints_it(brain: RunningBrain) -> None:
    async with brain.client(), brain.client():
        status, body = await get(brain.http + "/api/brain/status/ws")

    assert status == 200
    assert body == (
        "{\n"
        '  "success": true,\n'
        '  "websocket": {\n'
        '    "active": true,\n'
        '    "connected_clients": 2,\n'
        '    "endpoint": "/ws"\n'
        "  }\n"
        "}\n"
    )


async def test_a_client_that_leaves_is_no_longer_counted(brain: RunningBrain) -> None:
    async def connected_clients() -> int:
        _, body = await get(brain.http + "/api/brain/status/ws")
        count: int = json.loads(body)["websocket"]["connected_clients"]
        return count

    async with brain.client():
        assert await connected_clients() == 1
    async with brain.client() as abrupt:
        abrupt.transport.abort()
    async with asyncio.timeout(10):
        while await connected_clients():
            await asyncio.sleep(0.01)


async def test_the_front_page_answers_curl_and_a_browser(brain: RunningBrain) -> None:
    _, summary = await get(brain.http + "/")
    assert json.loads(summary)["service"] == "brain"
    for link in json.loads(summary)["links"].values():
        if link != "/ws":
            assert (await get(brain.http + link))[0] == 200

    status, page = await get(brain.http + "/", accept="text/html,*/*;q=0.8")
    assert (status, page[:15].lower()) == (200, "<!doctype html>")
