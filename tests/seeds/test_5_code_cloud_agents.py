"""The clients that the document of Code Cloud Agents prints, as they stand there."""

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

from brain.client.cloud_agents import (
    broadcast_agent_status,
    broadcast_chat_message,
    send_notification,
)
from brain.message.cloud_agents import CloudAgentsFormat
from tests.end_to_end.brain import becomes
from tests.seeds.comparing import is_as_printed
from tests.seeds.conftest import OwnBrain, Served, token
from tests.seeds.front_end import REACT, FrontEnd
from tests.seeds.packages import Packages
from tests.seeds.programs import Program, typed, under_node, wscat
from tests.seeds.signs import next_told
from tests.seeds.snippets import Document

DOCUMENT = Document("5-code-cloud-agents.md", "localhost:3000")

DASHBOARD = "root.render(<Dashboard />);"
MOUNTED = """
function Mounted() { window.hook = useWebSocket('abc123'); }
root.render(<Mounted />);
"""

# What the example for browsers refers to and does not define.
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
PRESENCE, PRESENCE_TOLD = printed("(`user_presence`)"), printed("(`user_presence`)", 2)
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
    assert (await front_end.next_told())["type"] == "connected"
    return is_as_printed(await front_end.next_told(), auth(user))


def auth(user: str) -> dict[str, Any]:
    return AUTH | {"data": AUTH["data"] | {"userId": user}}


def presence(user: str, status: str = "online") -> dict[str, Any]:
    return PRESENCE_TOLD | {"data": {"userId": user, "status": status}}


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
    """Another client, which stays until it is told that somebody is `leaving`, if that is said."""
    async with served.brain.client("/ws?token=ann") as client:
        assert (await next_told(client))["type"] == "auth"
        yield client
        while leaving and (await next_told(client))["data"] != gone(leaving)["data"]:
            pass


async def say(front_end: FrontEnd, said: dict[str, Any]) -> None:
    await front_end.run(f"ws.send(`{json.dumps(said)}`)")


async def test_who_comes_with_a_token_is_told_everything_as_it_is_printed(
    connected: FrontEnd, sql: asyncpg.Connection
) -> None:
    await sql.execute(WORK)
    assert is_as_printed(await connected.next_told(), AGENT_STATUS)
    await sql.execute(CHAT)
    assert is_as_printed(await connected.next_told(), CHAT_MESSAGE)
    await sql.execute(NOTIFY, PASSED)
    assert is_as_printed(await connected.next_told(), NOTIFICATION)


async def test_what_a_client_says_is_answered_as_it_is_printed(connected: FrontEnd) -> None:
    await say(connected, PING)
    assert is_as_printed(await connected.next_told(), PONG)
    await say(connected, {"type": "unheard-of"})
    assert is_as_printed(await connected.next_told(), ERROR)


async def test_presence_is_told_to_everybody_as_it_is_printed(
    connected: FrontEnd, served: Served
) -> None:
    async with onlooker(served) as another:
        await say(connected, PRESENCE)
        assert is_as_printed(await next_told(another), PRESENCE_TOLD)
        assert is_as_printed(await connected.next_told(), PRESENCE_TOLD)
        await connected.run("ws.close()")
        assert is_as_printed(await next_told(another), gone("user_abc123"))


async def test_a_notification_to_one_user_is_told_to_that_one(
    connected: FrontEnd, served: Served, sql: asyncpg.Connection
) -> None:
    failed = '{"level": "error", "message": "Task failed"}'
    async with onlooker(served) as another:
        await sql.execute(
            "SELECT brain.publish('notifications', 'notification', $1, 'user_abc123')", failed
        )
        await sql.execute(NOTIFY, PASSED)
        assert (await connected.next_told())["data"] == json.loads(failed)
        assert is_as_printed(await connected.next_told(), NOTIFICATION)
        assert is_as_printed(await next_told(another), NOTIFICATION)


async def test_what_the_backend_broadcasts_is_told_as_it_is_printed(
    connected: FrontEnd, served: Served, sql: asyncpg.Connection
) -> None:
    async with onlooker(served) as another:
        await broadcast_agent_status(AGENT_STATUS["data"], connection=sql)
        await broadcast_chat_message(CHAT_MESSAGE["data"], connection=sql)
        await send_notification("error", "Task failed", "user_abc123", connection=sql)
        await send_notification("success", "All tests passed!", connection=sql)
        for expected in (AGENT_STATUS, CHAT_MESSAGE, NOTIFICATION):
            assert is_as_printed(await next_told(another), expected)
    for expected in (AGENT_STATUS, CHAT_MESSAGE):
        assert is_as_printed(await connected.next_told(), expected)
    assert (await connected.next_told())["data"] == {"level": "error", "message": "Task failed"}
    assert is_as_printed(await connected.next_told(), NOTIFICATION)


async def test_who_is_not_known_is_told_so_and_nothing_else(
    front_end: FrontEnd, guarded: Served, guarded_sql: asyncpg.Connection
) -> None:
    await front_end.run(DOCUMENT.snippet("Authentication", at=guarded.address))
    assert (await front_end.next_told())["type"] == "connected"
    told = await front_end.next_told()
    assert (told["type"], told["data"]) == ("auth", {"success": False})
    async with guarded.brain.client(f"/ws?token={token()}") as another:
        assert (await next_told(another))["data"] == {"success": True, "userId": "ann"}
        await guarded_sql.execute(WORK)
        assert is_as_printed(await next_told(another), AGENT_STATUS)
    await say(front_end, PING)
    assert is_as_printed(await front_end.next_told(), PONG)


async def test_the_class_for_browsers_calls_its_handlers(
    front_end: FrontEnd, served: Served, sql: asyncpg.Connection
) -> None:
    await front_end.run(AROUND)
    await front_end.run(DOCUMENT.snippet("Browser (JavaScript)", at=served.address))
    assert (await front_end.next_said())[0].endswith("WebSocket connected")
    assert await is_welcome(front_end, "user_your-token-here")

    await sql.execute(WORK)
    await expect(front_end.page.locator("#agent-status")).to_have_text("working")
    await sql.execute(NOTIFY, PASSED)
    assert await front_end.next_said() == ["toast", "success", "All tests passed!"]
    await sql.execute(CHAT)
    said, chat = await front_end.next_said()
    assert said == "Chat message:"
    assert is_as_printed(chat, CHAT_MESSAGE["data"])
    await front_end.run("client.close();")
    assert (await front_end.next_said())[0].endswith("WebSocket disconnected")


async def test_the_class_for_browsers_states_its_presence(
    front_end: FrontEnd, served: Served
) -> None:
    user = "user_your-token-here"
    await front_end.run(AROUND)
    await front_end.run(DOCUMENT.snippet("Browser (JavaScript)", at=served.address))
    assert await is_welcome(front_end, user)
    await front_end.next_said()
    async with onlooker(served, leaving=user):
        await front_end.run("client.setPresence('busy');")
        assert await front_end.next_said() == ["User presence:", presence(user, "busy")["data"]]
        await front_end.run("client.close();")


async def test_the_class_for_browsers_sends_a_ping_every_half_minute(
    front_end: FrontEnd, served: Served
) -> None:
    await front_end.page.clock.install()
    await front_end.run(AROUND)
    await front_end.run(DOCUMENT.snippet("Browser (JavaScript)", at=served.address))
    assert await is_welcome(front_end, "user_your-token-here")
    await front_end.page.clock.fast_forward(30_000)
    assert is_as_printed(await front_end.next_told(), PONG)
    assert front_end.sent == [PING]


async def test_the_class_for_browsers_is_back_after_a_restart(
    front_end: FrontEnd, own_brain: OwnBrain, connection: asyncpg.Connection
) -> None:
    await front_end.page.clock.install()
    await front_end.run(AROUND)
    async with own_brain() as first:
        at = f"localhost:{first.port}"
        await front_end.run(DOCUMENT.snippet("Browser (JavaScript)", at=at))
        assert await is_welcome(front_end, "user_your-token-here")
        await front_end.next_said()
    assert (await front_end.next_said())[0].endswith("WebSocket disconnected")
    async with own_brain(first.port):
        await front_end.page.clock.fast_forward(5_000)
        assert (await front_end.next_said())[0].endswith("Reconnecting...")
        assert (await front_end.next_said())[0].endswith("WebSocket connected")
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
    told = await front_end.page.evaluate("hook.agentStatus")
    assert is_as_printed(told, AGENT_STATUS["data"])
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
        assert is_as_printed(await front_end.next_told(), PRESENCE_TOLD)
        await front_end.page.evaluate("unmount()")


async def is_welcomed(client: Program, user: str) -> bool:
    assert (await client.message())["type"] == "connected"
    return is_as_printed(await client.message(), auth(user))


async def logged(client: Program) -> dict[str, Any]:
    _, told = await client.said()
    assert isinstance(told, dict)
    return told


async def test_the_client_under_node_logs_what_it_is_told(
    tmp_path: Path, packages: Packages, served: Served, sql: asyncpg.Connection
) -> None:
    code = DOCUMENT.snippet("Node.js Client", at=served.address)
    user = "user_test-token"
    async with onlooker(served, leaving=user), under_node(tmp_path, packages, code) as client:
        assert (await client.said())[0].endswith("Connected")
        assert (await logged(client))["type"] == "connected"
        assert is_as_printed(await logged(client), auth(user))
        await sql.execute(WORK)
        told = await logged(client)
        if told["type"] == "user_presence":
            told = await logged(client)
        assert is_as_printed(told, AGENT_STATUS)


async def test_the_client_under_node_says_that_it_is_online(
    tmp_path: Path, packages: Packages, served: Served
) -> None:
    async with onlooker(served) as another:
        code = DOCUMENT.snippet("Node.js Client", at=served.address)
        async with under_node(tmp_path, packages, code):
            assert is_as_printed(await next_told(another), presence("user_test-token"))
        assert is_as_printed(await next_told(another), gone("user_test-token"))


async def test_who_gives_no_sign_of_life_is_disconnected(
    tmp_path: Path, packages: Packages, impatient: Served
) -> None:
    # The client under node answers no ping.
    code = DOCUMENT.snippet("Node.js Client", at=impatient.address)
    async with under_node(tmp_path, packages, code) as client:
        assert (await client.said())[0].endswith("Connected")
        while len(said := await client.said()) > 1:
            pass  # it is welcomed, and perhaps told how it is
        assert said[0].endswith("Disconnected")
    assert (CloudAgentsFormat.pulse_seconds, CloudAgentsFormat.silence_seconds) == (30, 60)


async def test_wscat_is_answered_as_it_is_printed(
    tmp_path: Path, packages: Packages, served: Served
) -> None:
    session = DOCUMENT.snippet("Manual Testing with wscat", 2, at=served.address)
    ping, _ = typed(session)
    async with wscat(tmp_path, packages, session) as client:
        assert await is_welcomed(client, "user_test-123")
        client.type(ping)
        assert is_as_printed(await client.message(), PONG)


async def test_wscat_is_told_its_own_presence(
    tmp_path: Path, packages: Packages, served: Served
) -> None:
    session = DOCUMENT.snippet("Manual Testing with wscat", 2, at=served.address)
    _, online = typed(session)
    user = "user_test-123"
    async with onlooker(served, leaving=user), wscat(tmp_path, packages, session) as client:
        assert await is_welcomed(client, user)
        client.type(online)
        assert is_as_printed(await client.message(), presence(user))
