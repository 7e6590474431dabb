"""Mission Control's document: its messages, against a running Brain."""

from __future__ import annotations

import time

import asyncpg
import jwt
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from brain.systems.channels.publishing import emit_agent_started
from tests.seeds.clients import bearer, client, received, values
from tests.seeds.comparing import is_as_printed
from tests.seeds.conftest import SECRET, Served
from tests.seeds.printed import listed
from tests.seeds.snippets import Document

DOCUMENT = Document("4-mission-control.md", "localhost:3000")

ONLINE = DOCUMENT.message("`agent:status`")
ACTIVITY = DOCUMENT.message("`session:activity`")

PATH = "/?token=test-123"

AGENT = "INSERT INTO agents (id, status) VALUES ('agent-abc-123', 'online')"
SESSION = "INSERT INTO sessions (id, agent_id) VALUES ('session-xyz-789', 'agent-abc-123')"


async def test_an_agent_is_sent_with_each_status_of_the_document_when_it_turns_to_it(
    served: Served, sql: asyncpg.Connection
) -> None:
    async with client(served, PATH) as connection:
        await sql.execute(AGENT)
        for change in (
            "status = 'working'",  # is sent as online, too
            "progress = 5, current_task = 'deploy', heartbeat_at = now()",
            "status = 'stopped'",
            "status = 'offline'",
            "status = 'error'",
            "error = 'Task execution failed'",
            "status = 'idle'",
        ):
            await sql.execute(f"UPDATE agents SET {change}")
        messages = await received(connection, 4)
    assert is_as_printed(messages[0], ONLINE)
    assert values(messages, "payload", "status") == [
        *listed(DOCUMENT.name, "Status values"),
        "online",
    ]
    times = values(messages, "payload", "timestamp")
    assert times == sorted(times)


async def test_its_own_tokens_without_sub_are_those_of_their_userid(
    guarded: Served, guarded_sql: asyncpg.Connection
) -> None:
    claims = {"userId": "user-1", "username": "ann", "role": "admin", "iat": int(time.time())}
    own = jwt.encode({**claims, "exp": int(time.time()) + 60}, SECRET, "HS256")
    async with (
        client(guarded, f"/?token={own}") as by_url,
        client(guarded, "/", **bearer(own)) as by_header,
    ):
        await guarded_sql.execute(AGENT)
        for connection in (by_url, by_header):
            assert is_as_printed((await received(connection, 1))[0], ONLINE)
        await guarded_sql.execute("SELECT brain.revoke('user-1')")
        for connection in (by_url, by_header):
            with pytest.raises(ConnectionClosed) as closed:
                await connection.recv()
            assert closed.value.rcvd is not None and closed.value.rcvd.code == 4503
    with pytest.raises(InvalidStatus) as refused:
        await client(guarded, f"/?token={own}")
    assert refused.value.response.status_code == 401


async def test_a_session_is_sent_when_there_is_new_activity_in_it(
    served: Served, sql: asyncpg.Connection
) -> None:
    activity = ACTIVITY["payload"]["lastMessage"]
    async with client(served, PATH) as connection:
        await sql.execute(SESSION)
        await sql.execute("UPDATE sessions SET last_message = $1", activity)
        await sql.execute("UPDATE sessions SET agent_id = 'agent-2'")  # not an activity
        await sql.execute("UPDATE sessions SET last_message = 'Done'")
        new, activity, last = await received(connection, 3)
    assert is_as_printed(activity, ACTIVITY)
    assert values([new, last], "payload", "lastMessage") == ["", "Done"]
    assert last["payload"]["agentId"] == "agent-2"


async def test_nothing_is_sent_before_and_between_agents_and_sessions(
    served: Served, sql: asyncpg.Connection
) -> None:
    others = (
        "INSERT INTO tasks (id) VALUES ('task-123')",
        "INSERT INTO missions (id) VALUES ('mission_123')",
        "INSERT INTO messages (id, conversation_id, content, sender) VALUES ('m', 'c', '', 's')",
        "SELECT brain.publish('notifications', 'notification', '{}')",
        "SELECT brain.publish('agents', 'session:activity', '{}')",
        "SELECT brain.publish('agents', 'agent:status', '\"online\"')",
        "SELECT brain.publish('news', 'agent:status', '{}')",
    )

    async def happen() -> None:
        """Make changes that only other kinds of clients receive."""
        for statement in others:
            await sql.execute(statement)
        await emit_agent_started("agent-abc-123", connection=sql)

    async with client(served, PATH) as connection:
        await happen()
        await sql.execute(AGENT)
        await sql.execute("TRUNCATE tasks, messages, missions")
        await happen()
        await sql.execute(SESSION)
        await sql.execute("DELETE FROM sessions")
        await sql.execute("DELETE FROM agents")
        messages = await received(connection, 3)
    assert values(messages, "type") == ["agent:status", "session:activity", "agent:status"]
    assert values(messages, "payload", "agentId") == ["agent-abc-123"] * 3
    for message in messages:
        assert list(message) == ["type", "payload"]
