"""The document of Code Cloud Agents: its messages, against a running Brain."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any, get_args

import asyncpg
import pytest
from websockets.asyncio.client import ClientConnection

from brain.errors import MessageRefused
from brain.systems.cloud_agents.publishing import broadcast_agent_status, send_notification
from brain.systems.cloud_agents.wire_format import Level
from tests.seeds.clients import client, received, values
from tests.seeds.comparing import is_as_printed
from tests.seeds.conftest import Served
from tests.seeds.heartbeats import next_message
from tests.seeds.printed import listed, printed

DOCUMENT = "5-code-cloud-agents.md"

(AGENT_STATUS,) = printed(DOCUMENT, "agent_status")
(CHAT_MESSAGE,) = printed(DOCUMENT, "chat_message")
(ERROR,) = printed(DOCUMENT, "error")
(PING,), (PONG,) = printed(DOCUMENT, "ping"), printed(DOCUMENT, "pong")
STATED, PRESENCE = printed(DOCUMENT, "user_presence")

WORK = """
UPDATE agents SET name = 'CLOUD_ASSISTANT', status = 'working', progress = 45,
                  current_task = 'Processing webhook event'
"""

MALFORMED = (
    "hello",
    "[1]",
    "{}",
    '{"type": "unheard-of"}',
    '{"type": "subscribe", "channel": "tasks"}',
    '{"type": "user_presence"}',
    '{"type": "user_presence", "data": "gone"}',
    '{"type": "user_presence", "data": {"status": "online"}}',
    "[" * 60 + "]" * 60,
)


@pytest.fixture
async def connection(served: Served, sql: asyncpg.Connection) -> AsyncIterator[ClientConnection]:
    """A client with the token `ann`, which has received the result of its authentication."""
    async with client(served, "/ws?token=ann") as connection:
        assert (await next_message(connection))["data"] == {"success": True, "userId": "user_ann"}
        yield connection


async def test_an_agent_is_sent_in_each_state_of_the_document_with_what_is_known_of_it(
    connection: ClientConnection, sql: asyncpg.Connection
) -> None:
    await sql.execute("INSERT INTO agents (id) VALUES ('agent-1')")
    await sql.execute(WORK)
    await sql.execute('UPDATE agents SET heartbeat_at = now(), health = \'{"health": "good"}\'')
    await sql.execute("UPDATE agents SET progress = 50")
    await sql.execute("UPDATE agents SET status = 'stopped', progress = NULL, current_task = NULL")
    idle, working, further, stopped = await received(connection, 4)
    assert idle["data"] == {"agentName": "agent-1", "state": "idle"}
    assert is_as_printed(working, AGENT_STATUS)
    assert is_as_printed(further, AGENT_STATUS | {"data": AGENT_STATUS["data"] | {"progress": 50}})
    assert stopped["data"] == {"agentName": "CLOUD_ASSISTANT", "state": "stopped"}
    states = values([idle, working, stopped], "data", "state")
    assert states == listed(DOCUMENT, "Agent States")


async def test_a_chat_message_is_sent_when_it_is_written_and_when_it_is_reworded(
    connection: ClientConnection, sql: asyncpg.Connection
) -> None:
    chat = CHAT_MESSAGE["data"]
    await sql.execute(
        "INSERT INTO messages (id, conversation_id, content, sender) VALUES ($1, $2, $3, $4)",
        *(chat[name] for name in ("messageId", "conversationId", "content", "sender")),
    )
    await sql.execute("UPDATE messages SET content = 'Task completed'")
    written, reworded = await received(connection, 2)
    assert is_as_printed(written, CHAT_MESSAGE)
    assert is_as_printed(reworded, CHAT_MESSAGE | {"data": chat | {"content": "Task completed"}})
    assert reworded["data"]["timestamp"] == written["data"]["timestamp"]


async def test_a_notification_of_each_level_of_the_document_is_sent_and_of_no_other(
    connection: ClientConnection, sql: asyncpg.Connection
) -> None:
    unknown: Any = "fatal"
    levels = listed(DOCUMENT, "Notification Levels")
    assert levels == list(get_args(Level))
    with pytest.raises(MessageRefused):
        await send_notification(unknown, "of no level", connection=sql)
    for level in get_args(Level):
        await send_notification(level, f"of level {level}", connection=sql)
    messages = await received(connection, len(levels))
    assert values(messages, "type") == ["notification"] * len(levels)
    assert values(messages, "data") == [
        {"level": level, "message": f"of level {level}"} for level in levels
    ]


async def test_the_optional_fields_of_a_status_may_be_left_out_of_a_broadcast(
    connection: ClientConnection, sql: asyncpg.Connection
) -> None:
    least = {"agentName": "CLOUD_ASSISTANT", "state": "idle"}
    with pytest.raises(MessageRefused):
        await broadcast_agent_status({"agentName": "CLOUD_ASSISTANT"}, connection=sql)
    await broadcast_agent_status(least, connection=sql)
    await broadcast_agent_status(AGENT_STATUS["data"], connection=sql)
    messages = await received(connection, 2)
    assert messages[0]["data"] == least
    assert is_as_printed(messages[1], AGENT_STATUS)


async def test_auth_is_the_first_message_and_connected_only_follows_where_more_is_asked_for(
    served: Served,
) -> None:
    (printed_auth,) = printed(DOCUMENT, "auth")
    async with client(served, "/ws?token=abc123") as plain:
        assert is_as_printed(await next_message(plain), printed_auth)
        await plain.send(json.dumps(PING))
        assert is_as_printed(await next_message(plain), PONG)
    for asked in ("channel=tasks", "cursor=", "snapshot", 'where={"agent":"dev"}', "latest=1"):
        async with client(served, f"/ws?token=abc123&{asked}") as asking:
            first, second = await received(asking, 2)
            assert (first["type"], second["type"]) == ("auth", "connected"), asked
    async with client(served, "/ws?token=abc123", subprotocols=["brain.cursor"]) as asking:
        first, second = await received(asking, 2)
        assert (first["type"], second["type"]) == ("auth", "connected")


async def test_a_client_with_a_bad_token_or_none_gets_the_error_text(guarded: Served) -> None:
    for token in ("bad", ""):
        async with client(guarded, f"/ws?token={token}") as connection:
            assert (await next_message(connection))["data"] == {
                "success": False,
                "error": "Auth failed",
            }


async def test_a_client_that_states_offline_appears_so_until_it_states_another_presence(
    connection: ClientConnection, served: Served
) -> None:
    statuses = ("offline", "offline", "busy", "offline", "online", "offline")
    async with served.brain.client("/ws?token=abc123") as other:
        for status in statuses:
            await other.send(json.dumps(STATED | {"data": status}))
        sent = await received(connection, 5)
        assert values(sent, "data", "status") == ["offline", "busy", "offline", "online", "offline"]
    async with served.brain.client("/ws?token=abc123") as other:
        await other.send(json.dumps(STATED | {"data": "online"}))
        (back,) = await received(connection, 1)
        assert back["data"]["status"] == "online"
    (left,) = await received(connection, 1)
    assert left["data"]["status"] == "offline"


async def test_each_presence_that_a_client_states_is_sent_and_offline_when_it_has_left(
    connection: ClientConnection, served: Served
) -> None:
    *stated, offline = listed(DOCUMENT, "Presence Status")
    async with served.brain.client("/ws?token=abc123") as other:
        for status in stated:
            await other.send(json.dumps(STATED | {"data": status}))
        messages = await received(connection, len(stated))
        assert is_as_printed(messages[0], PRESENCE)
    messages += await received(connection, 1)
    assert values(messages, "data", "status") == [*stated, offline]
    assert set(values(messages, "data", "userId")) == {"user_abc123"}


async def test_a_malformed_message_is_answered_as_printed_and_the_connection_lives(
    connection: ClientConnection,
) -> None:
    for text in MALFORMED:
        await connection.send(text)
        assert is_as_printed(await next_message(connection), ERROR)
    await connection.send(json.dumps({"type": "pong"}))  # has no reply
    await connection.send(json.dumps(PING))
    assert is_as_printed(await next_message(connection), PONG)
