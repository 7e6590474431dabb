"""The clients that the document of Code Cloud Agents prints, verbatim."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from playwright.async_api import expect
from websockets.asyncio.client import ClientConnection

from brain.systems.cloud_agents.publishing import (
    broadcast_agent_status,
    broadcast_chat_message,
    send_notification,
)
from brain.systems.cloud_agents.wire_format import CloudAgentsFormat
from tests.end_to_end.brain import becomes
from tests.seeds.clients import client
from tests.seeds.comparing import is_as_printed
from tests.seeds.conftest import OwnBrain, Served, token
from tests.seeds.front_end import REACT, FrontEnd
from tests.seeds.heartbeats import next_message
from tests.seeds.packages import Packages
from tests.seeds.programs import Program, typed, under_node, wscat
from tests.seeds.snippets import Document

DOCUMENT = Document("5-code-cloud-agents.md", "localhost:3000")

DASHBOARD = "root.render(<Dashboard />);"
MOUNTED = """
function Mounted() { window.hook = useWebSocket('abc123'); }
root.render(<Mounted />);
"""

# Names that the example for browsers uses and does not define.
AROUND = """
document.body.insertAdjacentHTML('beforeend', '<p id="agent-status"></p>');
const showToast = (level, message) => console.log('toast', level, message);
"""


def printed(heading: str, number: int = 1) -> dict[str, Any]:
    (full,) = (name for name in DOCUMENT.headings if heading in name)
    return DOCUMENT.message(full, number)


AUTH = printed("(`auth`)")
PING, PONG = printed("(`ping`, `pong`)"), printed("(`ping`, `pong`)", 2)
AGENT_STATUS = printed("(`agent_status`)")
CHAT_MESSAGE = printed("(`chat_message`)")
NOTIFICATION = printed("(`notification`)")
PRESENCE, PRESENCE_UPDATE = printed("(`user_presence`)"), printed("(`user_presence`)", 2)
ERROR = printed("(`error`)")

WORK = """
INSERT INTO agents (id, name, status, current_task, progress)
VALUES ('agent-1', 'CLOUD_ASSISTANT', 'working', 'Processing webhook event', 45)
"""
CHAT = """
INSERT INTO messages (id, conversation_id, content, sender)
VALUES ('msg-456', 'conv-123', 'Task completed successfully!', 'ENGINEERING_LEAD_SUPERVISOR')
"""
NOTIFY = "SELECT brain.publish('notifications', 'notification', $1)"
PASSED = json.dumps(NOTIFICATION["data"])


async def is_welcome(front_end: FrontEnd, user: str) -> bool:
    return is_as_printed(await front_end.next_message(), auth(user))


def auth(user: str) -> dict[str, Any]:
    return AUTH | {"data": AUTH["data"] | {"userId": user}}


def presence(user: str, status: str = "online") -> dict[str, Any]:
    return PRESENCE_UPDATE | {"data": {"userId": user, "status": status}}


def gone(user: str) -> dict[str, Any]:
    return presence(user, "offline")


@pytest.fixture
async def connected(front_end: FrontEnd, served: Served, sql: asyncpg.Connection) -> FrontEnd:
    """A page that keeps its connection, by the token `abc123`, in `ws`."""
    await front_end.run(DOCUMENT.snippet("Authentication", at=served.address))
    assert await is_welcome(front_end, "user_abc123")
    return front_end


@asynccontextmanager
async def onlooker(served: Served, leaving: str = "") -> AsyncIterator[ClientConnection]:
    """Run another client, in the end until it receives that `leaving`, if given, is offline."""
    async with served.brain.client("/ws?token=ann") as client:
        yield client
        while leaving and (await next_message(client))["data"] != gone(leaving)["data"]:
            pass


async def send(front_end: FrontEnd, sent: dict[str, Any]) -> None:
    await front_end.run(f"ws.send(`{json.dumps(sent)}`)")


async def test_a_client_with_a_token_is_sent_everything_as_printed(
    connected: FrontEnd, sql: asyncpg.Connection
) -> None:
    await sql.execute(WORK)
    assert is_as_printed(await connected.next_message(), AGENT_STATUS)
    await sql.execute(CHAT)
    assert is_as_printed(await connected.next_message(), CHAT_MESSAGE)
    await sql.execute(NOTIFY, PASSED)
    assert is_as_printed(await connected.next_message(), NOTIFICATION)


async def test_client_messages_are_answered_as_printed(connected: FrontEnd) -> None:
    await send(connected, PING)
    assert is_as_printed(await connected.next_message(), PONG)
    await send(connected, {"type": "unheard-of"})
    assert is_as_printed(await connected.next_message(), ERROR)


async def test_presence_is_sent_to_every_client_as_printed(
    connected: FrontEnd, served: Served
) -> None:
    async with onlooker(served) as another:
        await send(connected, PRESENCE)
        assert is_as_printed(await next_message(another), PRESENCE_UPDATE)
        assert is_as_printed(await connected.next_message(), PRESENCE_UPDATE)
        await connected.run("ws.close()")
        assert is_as_printed(await next_message(another), gone("user_abc123"))


async def test_a_notification_to_one_user_is_sent_to_that_user_alone(
    connected: FrontEnd, served: Served, sql: asyncpg.Connection
) -> None:
    failed = '{"level": "error", "message": "Task failed"}'
    async with onlooker(served) as another:
        await sql.execute(
            "SELECT brain.publish('notifications', 'notification', $1, 'user_abc123')", failed
        )
        await sql.execute(NOTIFY, PASSED)
        assert (await connected.next_message())["data"] == json.loads(failed)
        assert is_as_printed(await connected.next_message(), NOTIFICATION)
        assert is_as_printed(await next_message(another), NOTIFICATION)


async def test_broadcasts_of_the_backend_are_sent_as_printed(
    connected: FrontEnd, served: Served, sql: asyncpg.Connection
) -> None:
    async with onlooker(served) as another:
        await broadcast_agent_status(AGENT_STATUS["data"], connection=sql)
        await broadcast_chat_message(CHAT_MESSAGE["data"], connection=sql)
        await send_notification("error", "Task failed", "user_abc123", connection=sql)
        await send_notification("success", "All tests passed!", connection=sql)
        for expected in (AGENT_STATUS, CHAT_MESSAGE, NOTIFICATION):
            assert is_as_printed(await next_message(another), expected)
    for expected in (AGENT_STATUS, CHAT_MESSAGE):
        assert is_as_printed(await connected.next_message(), expected)
    assert (await connected.next_message())["data"] == {"level": "error", "message": "Task failed"}
    assert is_as_printed(await connected.next_message(), NOTIFICATION)


async def test_an_unauthenticated_client_is_sent_a_failed_auth_and_nothing_else(
    front_end: FrontEnd, guarded: Served, guarded_sql: asyncpg.Connection
) -> None:
    await front_end.run(DOCUMENT.snippet("Authentication", at=guarded.address))
    found = await front_end.next_message()
    assert (found["type"], found["data"]) == ("auth", {"success": False, "error": "Auth failed"})
    async with client(guarded, f"/ws?token={token()}") as another:
        assert (await next_message(another))["data"] == {"success": True, "userId": "ann"}
        await guarded_sql.execute(WORK)
        assert is_as_printed(await next_message(another), AGENT_STATUS)
    await send(front_end, PING)
    assert is_as_printed(await front_end.next_message(), PONG)


async def test_the_class_for_browsers_calls_its_handlers(
    front_end: FrontEnd, served: Served, sql: asyncpg.Connection
) -> None:
    await front_end.run(AROUND)
    await front_end.run(DOCUMENT.snippet("Browser (JavaScript)", at=served.address))
    assert (await front_end.next_logged())[0].endswith("WebSocket connected")
    assert await is_welcome(front_end, "user_your-token-here")

    await sql.execute(WORK)
    await expect(front_end.page.locator("#agent-status")).to_have_text("working")
    await sql.execute(NOTIFY, PASSED)
    assert await front_end.next_logged() == ["toast", "success", "All tests passed!"]
    await sql.execute(CHAT)
    logged, chat = await front_end.next_logged()
    assert logged == "Chat message:"
    assert is_as_printed(chat, CHAT_MESSAGE["data"])
    await front_end.run("client.close();")
    assert (await front_end.next_logged())[0].endswith("WebSocket disconnected")


async def test_the_class_for_browsers_states_its_presence(
    front_end: FrontEnd, served: Served
) -> None:
    user = "user_your-token-here"
    await front_end.run(AROUND)
    await front_end.run(DOCUMENT.snippet("Browser (JavaScript)", at=served.address))
    assert await is_welcome(front_end, user)
    await front_end.next_logged()
    async with onlooker(served, leaving=user):
        await front_end.run("client.setPresence('busy');")
        assert await front_end.next_logged() == ["User presence:", presence(user, "busy")["data"]]
        await front_end.run("client.close();")


async def test_the_class_for_browsers_sends_a_ping_every_half_minute(
    front_end: FrontEnd, served: Served
) -> None:
    await front_end.page.clock.install()
    await front_end.run(AROUND)
    await front_end.run(DOCUMENT.snippet("Browser (JavaScript)", at=served.address))
    assert await is_welcome(front_end, "user_your-token-here")
    await front_end.page.clock.fast_forward(30_000)
    assert is_as_printed(await front_end.next_message(), PONG)
    assert front_end.sent == [PING]


async def test_the_class_for_browsers_is_back_after_a_restart(
    front_end: FrontEnd, own_brain: OwnBrain, connection: asyncpg.Connection
) -> None:
    # Stop the clock: the client may not reconnect before Brain is back.
    await front_end.page.clock.install(time=0)
    await front_end.page.clock.pause_at(1)
    await front_end.run(AROUND)
    async with own_brain() as first:
        at = f"localhost:{first.port}"
        await front_end.run(DOCUMENT.snippet("Browser (JavaScript)", at=at))
        assert await is_welcome(front_end, "user_your-token-here")
        await front_end.next_logged()
    assert (await front_end.next_logged())[0].endswith("WebSocket disconnected")
    async with own_brain(first.port):
        await front_end.page.clock.fast_forward(5_000)
        assert (await front_end.next_logged())[0].endswith("Reconnecting...")
        assert (await front_end.next_logged())[0].endswith("WebSocket connected")
        assert await is_welcome(front_end, "user_your-token-here")
        await connection.execute(WORK)
        await expect(front_end.page.locator("#agent-status")).to_have_text("working")


async def test_the_react_dashboard_shows_the_agent_and_notifications(
    front_end: FrontEnd, packages: Packages, served: Served, sql: asyncpg.Connection
) -> None:
    dashboard = DOCUMENT.snippet("React Hook", at=served.address)
    await front_end.mount(packages, REACT, dashboard, DASHBOARD)
    lines = front_end.page.locator("#root > div > div")
    await expect(lines.nth(0)).to_have_text(re.compile(r"^Status: \S+ Connected$"))
    await sql.execute(WORK)
    await expect(lines.nth(1)).to_have_text("Agent: working")
    await sql.execute("UPDATE agents SET status = 'stopped'")
    await expect(lines.nth(1)).to_have_text("Agent: stopped")
    await sql.execute(NOTIFY, PASSED)
    await expect(front_end.page.locator(".alert-success")).to_have_text("All tests passed!")
    await sql.execute(NOTIFY, '{"level": "warning", "message": "Slow"}')
    await expect(front_end.page.locator(".alert-warning")).to_have_text("Slow")


async def test_the_react_hook_holds_what_an_agent_does_and_leaves_when_unmounted(
    front_end: FrontEnd, packages: Packages, served: Served, sql: asyncpg.Connection
) -> None:
    hook = DOCUMENT.snippet("React Hook", at=served.address)
    await front_end.mount(packages, REACT, hook, MOUNTED)
    await front_end.holds("hook.isConnected && hook.agentStatus === null")
    await sql.execute(WORK)
    await front_end.holds("hook.agentStatus !== null")
    found = await front_end.page.evaluate("hook.agentStatus")
    assert is_as_printed(found, AGENT_STATUS["data"])
    await front_end.page.evaluate("unmount()")
    await becomes(lambda: front_end.sockets[0].is_closed())


async def test_the_react_hook_states_a_presence(
    front_end: FrontEnd, packages: Packages, served: Served
) -> None:
    hook = DOCUMENT.snippet("React Hook", at=served.address)
    await front_end.mount(packages, REACT, hook, MOUNTED)
    assert await is_welcome(front_end, "user_abc123")
    async with onlooker(served, leaving="user_abc123"):
        await front_end.page.evaluate("hook.sendPresence('online')")
        assert is_as_printed(await front_end.next_message(), PRESENCE_UPDATE)
        await front_end.page.evaluate("unmount()")


async def is_welcomed(client: Program, user: str) -> bool:
    return is_as_printed(await client.message(), auth(user))


async def logged(client: Program) -> dict[str, Any]:
    _, found = await client.next_logged()
    assert isinstance(found, dict)
    return found


async def test_the_client_under_node_logs_what_it_is_sent(
    tmp_path: Path, packages: Packages, served: Served, sql: asyncpg.Connection
) -> None:
    code = DOCUMENT.snippet("Node.js Client", at=served.address)
    user = "user_test-token"
    async with onlooker(served, leaving=user), under_node(tmp_path, packages, code) as client:
        assert (await client.next_logged())[0].endswith("Connected")
        assert is_as_printed(await logged(client), auth(user))
        await sql.execute(WORK)
        found = await logged(client)
        if found["type"] == "user_presence":
            found = await logged(client)
        assert is_as_printed(found, AGENT_STATUS)


async def test_the_client_under_node_states_that_it_is_online(
    tmp_path: Path, packages: Packages, served: Served
) -> None:
    async with onlooker(served) as another:
        code = DOCUMENT.snippet("Node.js Client", at=served.address)
        async with under_node(tmp_path, packages, code):
            assert is_as_printed(await next_message(another), presence("user_test-token"))
        assert is_as_printed(await next_message(another), gone("user_test-token"))


async def test_a_client_that_sends_nothing_is_disconnected(
    tmp_path: Path, packages: Packages, impatient: Served
) -> None:
    # The client under node answers no ping.
    code = DOCUMENT.snippet("Node.js Client", at=impatient.address)
    async with under_node(tmp_path, packages, code) as client:
        assert (await client.next_logged())[0].endswith("Connected")
        while len(logged := await client.next_logged()) > 1:
            pass  # a greeting, and perhaps its own presence
        assert logged[0].endswith("Disconnected")
    assert (CloudAgentsFormat.heartbeat_seconds, CloudAgentsFormat.client_timeout_seconds) == (
        30,
        60,
    )


async def test_wscat_is_answered_as_printed(
    tmp_path: Path, packages: Packages, served: Served
) -> None:
    session = DOCUMENT.snippet("Manual Testing with wscat", 2, at=served.address)
    ping, _ = typed(session)
    async with wscat(tmp_path, packages, session) as client:
        assert await is_welcomed(client, "user_test-123")
        client.type(ping)
        assert is_as_printed(await client.message(), PONG)


async def test_wscat_is_sent_its_own_presence(
    tmp_path: Path, packages: Packages, served: Served
) -> None:
    session = DOCUMENT.snippet("Manual Testing with wscat", 2, at=served.address)
    _, online = typed(session)
    user = "user_test-123"
    async with onlooker(served, leaving=user), wscat(tmp_path, packages, session) as client:
        assert await is_welcomed(client, user)
        client.type(online)
        assert is_as_printed(await client.message(), presence(user))
