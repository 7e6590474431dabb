"""Cecelia Brain's document: messages, calls and tokens, against a running Brain."""

from __future__ import annotations

import json
import re
from typing import Any

import asyncpg
import pytest
from asyncpg.exceptions import CheckViolationError

from brain.systems.cecelia.publishing import update_task_progress, update_task_status
from tests.end_to_end import brain
from tests.seeds.clients import bearer, client, received, values
from tests.seeds.comparing import ISO, is_as_printed
from tests.seeds.conftest import Served, has_sent_so_far, token
from tests.seeds.heartbeats import next_message
from tests.seeds.snippets import Document

DOCUMENT = Document("1-cecelia-brain.md", "localhost:5221")
INTERFACE = DOCUMENT.code("Message Format")
CALLS = DOCUMENT.code("Backend Integration")

CONNECTED = DOCUMENT.message("1. Connected (Server → Client)")
UPDATE = DOCUMENT.message("2. Run Update (Server → Client)")
COMPLETED = DOCUMENT.message("3. Run Complete (Server → Client)")
HELLO = DOCUMENT.message("5. Echo (Bidirectional)", 1)
ECHO = DOCUMENT.message("5. Echo (Bidirectional)", 2)

QUEUE = "INSERT INTO tasks (id, agent) VALUES ('task-123', 'dev')"
RUN = "UPDATE tasks SET status = 'running', progress = 5, completed_at = NULL"
COMPLETE = "UPDATE tasks SET status = 'completed', progress = 11"
FAIL = "UPDATE tasks SET status = 'failed', error = 'Build failed'"


def alternatives(key: str) -> set[str]:
    """Return the values that the interface allows for a key."""
    found = re.search(rf"^ +{key}\??: ('.+');", INTERFACE, re.MULTILINE)
    assert found
    return set(re.findall(r"'(\w+)'", found[1]))


def argument(pattern: str) -> str:
    """Return an argument that the printed calls pass."""
    found = re.search(pattern, CALLS)
    assert found, pattern
    return found[1]


async def life_of_a_task(served: Served, sql: asyncpg.Connection) -> list[dict[str, Any]]:
    """Return all messages about a task that is queued, runs, completes, runs and fails."""
    async with client(served, "/ws") as connection:
        messages = await received(connection, 1)
        for statement in (QUEUE, RUN, COMPLETE, RUN, FAIL):
            await sql.execute(statement)
            messages += await received(connection, 1)
        await connection.send(json.dumps(HELLO))
        return messages + await received(connection, 1)


async def test_the_types_and_statuses_of_the_interface_are_sent_and_no_others(
    served: Served, sql: asyncpg.Connection
) -> None:
    greeting, *runs, echo = await life_of_a_task(served, sql)
    assert set(values([greeting, *runs, echo], "type")) == alternatives("type")
    assert set(values(runs, "data", "status")) == alternatives("status")
    keys = set(re.findall(r"^    (\w+)\?:", INTERFACE, re.MULTILINE))
    for message in (greeting, *runs):
        assert list(message) == re.findall(r"^  (\w+):", INTERFACE, re.MULTILINE)
        assert set(message["data"]) <= keys
        assert ISO.fullmatch(message["timestamp"])
    assert is_as_printed(greeting, CONNECTED)
    assert is_as_printed(echo, ECHO)


async def test_a_task_is_sent_with_its_start_its_end_and_its_error(
    served: Served, sql: asyncpg.Connection
) -> None:
    _, queued, begun, completed, again, failed, _ = await life_of_a_task(served, sql)

    def moments(message: dict[str, Any]) -> tuple[str, ...]:
        """Return which of the three have a value; check the format of the times."""
        data = message["data"]
        for name in ("started_at", "completed_at"):
            assert data[name] is None or ISO.fullmatch(data[name])
        return tuple(name for name in ("started_at", "completed_at", "error") if data[name])

    assert moments(queued) == ()
    assert moments(begun) == moments(again) == ("started_at",)
    assert moments(completed) == ("started_at", "completed_at")
    assert moments(failed) == ("started_at", "error")
    assert completed["data"]["started_at"] == begun["data"]["started_at"]
    assert failed["data"]["error"] == "Build failed"


async def test_a_status_that_the_interface_does_not_have_is_refused_and_not_sent(
    served: Served, sql: asyncpg.Connection
) -> None:
    async with served.brain.client() as connection:
        await sql.execute(QUEUE)
        with pytest.raises(CheckViolationError):
            await sql.execute("UPDATE tasks SET status = 'cancelled'")
        await sql.execute(RUN)
        messages = await received(connection, 2)
    assert values(messages, "data", "status") == ["queued", "in_progress"]


async def test_what_the_printed_calls_change_is_sent_to_every_client(
    served: Served, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BRAIN_DATABASE_URL", served.database)
    await sql.execute(QUEUE)
    await sql.execute("UPDATE tasks SET status = 'running'")
    await has_sent_so_far(served, sql, "/ws?channel=emptied")
    async with served.brain.client() as one, served.brain.client() as another:
        step, name = argument(r"current_step: (\d+)"), argument(r"step_name: '(.+)'")
        await update_task_progress("task-123", current_step=int(step), step_name=name)
        result = {"result": argument(r"result: '(.+)'")}
        status = argument(r"updateTaskStatus\(taskId, '(\w+)'")
        await update_task_status("task-123", status, payload=result)
        for connection in (one, another):
            update, completed = await received(connection, 2)
            assert is_as_printed(update, UPDATE)
            expected = COMPLETED["data"] | {"progress": int(step)}
            assert is_as_printed(completed, COMPLETED | {"data": expected})
    payload = json.loads(await sql.fetchval("SELECT payload FROM tasks"))
    assert payload == {"current_step": int(step), "step_name": name, **result}


async def test_without_authentication_a_client_needs_no_token(
    served: Served, sql: asyncpg.Connection
) -> None:
    async with served.brain.client() as without, client(served, "/ws?token=ann") as with_one:
        assert (await next_message(with_one))["data"]["success"] is True
        await sql.execute(QUEUE)
        for connection in (without, with_one):
            assert (await next_message(connection))["data"]["id"] == "task-123"


async def test_with_jwt_a_client_is_sent_tasks_only_if_it_has_a_token(
    guarded: Served, guarded_sql: asyncpg.Connection
) -> None:
    signed = token()
    ways = (
        client(guarded, "/ws", **bearer(signed)),
        client(guarded, "/ws", subprotocols=["brain.cursor", f"brain.token.{signed}"]),
        client(guarded, f"/ws?token={signed}"),
    )
    async with ways[0] as header, ways[1] as subprotocol, ways[2] as url:
        async with client(guarded, "/ws") as without:
            await guarded_sql.execute(QUEUE)
            for connection in (header, subprotocol, url):
                messages = await received(connection, 2)
                assert messages[-1]["data"]["id"] == "task-123"
            await without.send(json.dumps(HELLO))
            assert values(await received(without, 2), "type") == ["connected", "echo"]


async def test_a_plain_client_is_sent_the_documented_messages_and_nothing_else(
    served: Served, sql: asyncpg.Connection
) -> None:
    async with client(served, "/ws") as connection, served.brain.client("/ws?token=ann") as other:
        await other.send('{"type": "user_presence", "data": "online"}')
        for statement in (
            "INSERT INTO agents (id) VALUES ('agent-1')",
            "INSERT INTO sessions (id, agent_id) VALUES ('session-1', 'agent-1')",
            "INSERT INTO messages (conversation_id, content, sender) VALUES ('c', 'x', 's')",
            "INSERT INTO missions (id, name) VALUES ('mission-1', 'deploy')",
            "SELECT brain.publish('notifications', 'notification', '{\"level\": \"info\"}')",
            "SELECT brain.broadcast('announcement', '{}')",
            QUEUE,
            "UPDATE tasks SET title = 'Not a part of the protocol'",
            "UPDATE tasks SET status = 'running'",
            "UPDATE tasks SET status = 'completed'",
        ):
            await sql.execute(statement)
        await connection.send(json.dumps(HELLO))
        found: list[dict[str, Any]] = []
        while not found or found[-1]["type"] != "run_complete":
            found.append(await brain.message(connection))
    echoes = [one for one in found if one["type"] == "echo"]
    assert [one["data"] for one in echoes] == [HELLO] * len(echoes)
    rest = [one for one in found if one["type"] != "echo"]
    assert values(rest, "type") == ["connected", "run_update", "run_update", "run_complete"]
    assert values(rest[1:], "data", "status") == ["queued", "in_progress", "completed"]
    for one in found:
        assert list(one) == ["type", "data", "timestamp"]
