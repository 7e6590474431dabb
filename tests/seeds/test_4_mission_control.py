"""The clients that Mission Control's document prints, verbatim."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from brain.systems.mission_control.publishing import (
    broadcast_agent_status,
    broadcast_session_activity,
)
from brain.systems.mission_control.wire_format import MissionControlFormat
from tests.end_to_end.brain import becomes, ended
from tests.seeds.comparing import is_as_printed, kinds
from tests.seeds.conftest import OwnBrain, Served, token
from tests.seeds.front_end import REACT, FrontEnd
from tests.seeds.packages import Packages
from tests.seeds.programs import DIRECTLY, under_node
from tests.seeds.snippets import Document

DOCUMENT = Document("4-mission-control.md", "localhost:3000")

WS = "const WebSocket = require('ws');\n"
LOGGED = """
ws.on('open', () => console.log('open'));
ws.on('message', text => console.log(JSON.parse(text)));
ws.on('error', error => console.log(error.message));
ws.on('close', code => console.log('close', code));
"""

MOUNTED = """
function Mounted() { window.hook = useWebSocket('test-123'); }
root.render(<Mounted />);
"""

ONLINE = DOCUMENT.message("`agent:status`")
ACTIVITY = DOCUMENT.message("`session:activity`")
HEARTBEAT = DOCUMENT.message("`heartbeat`")

AGENT = "INSERT INTO agents (id, status) VALUES ('agent-abc-123', 'online')"
TURN = "UPDATE agents SET status = $1 WHERE id = 'agent-abc-123'"
ADD_SESSION = """
INSERT INTO sessions (id, agent_id, last_message)
VALUES ('session-xyz-789', 'agent-abc-123', 'Processing user request...')
"""


async def test_a_client_under_node_is_admitted_by_its_header(
    tmp_path: Path, packages: Packages, guarded: Served, guarded_sql: asyncpg.Connection
) -> None:
    code = DOCUMENT.snippet(
        "Authentication", at=guarded.address, fill_in={"<your-jwt-token>": token()}
    )
    async with under_node(tmp_path, packages, WS + code + LOGGED) as client:
        assert await client.next_logged() == ["open"]
        await guarded_sql.execute(AGENT)
        assert is_as_printed(await client.next_logged(), [ONLINE])
        await guarded_sql.execute(ADD_SESSION)
        assert is_as_printed(await client.next_logged(), [ACTIVITY])


@pytest.mark.parametrize("seconds", [-60, None])
async def test_a_client_under_node_is_rejected_with_1006_for_a_bad_header(
    tmp_path: Path, packages: Packages, guarded: Served, seconds: int | None
) -> None:
    bad = "malformed" if seconds is None else token(seconds)
    code = DOCUMENT.snippet("Authentication", at=guarded.address, fill_in={"<your-jwt-token>": bad})
    async with under_node(tmp_path, packages, WS + code + LOGGED) as client:
        assert await client.next_logged() == ["Unexpected server response: 401"]
        assert await client.next_logged() == ["close", 1006]


async def test_a_browser_is_admitted_by_the_url(
    front_end: FrontEnd, guarded: Served, guarded_sql: asyncpg.Connection
) -> None:
    code = DOCUMENT.snippet(
        "Authentication", 2, at=guarded.address, fill_in={"<your-jwt-token>": token()}
    )
    await front_end.run(code)
    await front_end.holds("ws.readyState === WebSocket.OPEN")
    await guarded_sql.execute(AGENT)
    assert is_as_printed(await front_end.next_message(), ONLINE)


async def test_the_example_for_browsers_logs_agents_and_sessions(
    front_end: FrontEnd, served: Served, sql: asyncpg.Connection
) -> None:
    await front_end.run(DOCUMENT.snippet("JavaScript/Browser", at=served.address))
    assert await front_end.next_logged() == ["Connected to Mission Control"]

    await sql.execute(AGENT)
    assert await front_end.next_logged() == ["Agent agent-abc-123 is now online"]
    await sql.execute(TURN, "stopped")
    assert await front_end.next_logged() == ["Agent agent-abc-123 is now offline"]
    await sql.execute(TURN, "error")
    assert await front_end.next_logged() == ["Agent agent-abc-123 is now error"]
    await sql.execute(ADD_SESSION)
    assert await front_end.next_logged() == ["New activity in session session-xyz-789"]

    assert is_as_printed(front_end.received[0], ONLINE)
    assert is_as_printed(front_end.received[3], ACTIVITY)
    await front_end.run("ws.close(1000, 'enough')")
    assert await front_end.next_logged() == ["Disconnected:", 1000, "enough"]


async def test_the_example_for_browsers_logs_what_the_backend_broadcasts(
    front_end: FrontEnd, served: Served, sql: asyncpg.Connection
) -> None:
    await front_end.run(DOCUMENT.snippet("JavaScript/Browser", at=served.address))
    assert await front_end.next_logged() == ["Connected to Mission Control"]

    await broadcast_agent_status("agent-123", "online", connection=sql)
    assert await front_end.next_logged() == ["Agent agent-123 is now online"]
    await broadcast_session_activity("agent-123", "session-456", "User said: Hello", connection=sql)
    assert await front_end.next_logged() == ["New activity in session session-456"]
    for found, printed in zip(front_end.received, (ONLINE, ACTIVITY), strict=True):
        assert found["type"] == printed["type"]
        assert list(found["payload"]) == list(printed["payload"])
    assert front_end.received[1]["payload"]["lastMessage"] == "User said: Hello"


async def test_the_example_for_browsers_logs_that_the_server_goes_away(
    front_end: FrontEnd, own_brain: OwnBrain
) -> None:
    async with own_brain() as brain:
        at = f"localhost:{brain.port}"
        await front_end.run(DOCUMENT.snippet("JavaScript/Browser", at=at))
        assert await front_end.next_logged() == ["Connected to Mission Control"]
    assert (await front_end.next_logged())[:2] == ["Disconnected:", 1001]


@pytest.mark.parametrize("why", ["no token", "malformed", "expired"])
async def test_the_example_for_browsers_logs_1006_when_it_is_rejected(
    front_end: FrontEnd, guarded: Served, why: str
) -> None:
    changes = {
        "no token": {"?token=${token}": ""},
        "malformed": {},
        "expired": {"your-jwt-token": token(-60)},
    }
    code = DOCUMENT.snippet("JavaScript/Browser", at=guarded.address, fill_in=changes[why])
    await front_end.run(code)
    assert (await front_end.next_logged())[0] == "WebSocket error:"
    assert await front_end.next_logged() == ["Disconnected:", 1006, ""]


async def test_a_heartbeat_is_sent_as_printed(front_end: FrontEnd, impatient: Served) -> None:
    await front_end.run(DOCUMENT.snippet("JavaScript/Browser", at=impatient.address))
    await becomes(lambda: len(front_end.heartbeats) > 1)
    assert is_as_printed(front_end.heartbeats[0], HEARTBEAT)
    assert MissionControlFormat.heartbeat_seconds == 30


async def test_the_react_hook_holds_the_newest_status_of_every_agent(
    front_end: FrontEnd, packages: Packages, served: Served, sql: asyncpg.Connection
) -> None:
    hook = DOCUMENT.snippet("React Hook Example", at=served.address)
    await front_end.mount(packages, REACT, hook, MOUNTED)
    await front_end.holds("hook.isConnected")
    await sql.execute("INSERT INTO agents (id, status) VALUES ('agent-2', 'working')")
    await sql.execute(AGENT)
    await front_end.holds("hook.agentStatuses.size === 2")
    payload = await front_end.page.evaluate("hook.agentStatuses.get('agent-abc-123')")
    assert is_as_printed(payload, ONLINE["payload"])
    await sql.execute(TURN, "error")
    await front_end.holds("hook.agentStatuses.get('agent-abc-123').status === 'error'")
    await front_end.page.evaluate("unmount()")
    await becomes(lambda: front_end.sockets[0].is_closed())


async def test_the_react_hook_shows_that_it_is_not_connected(
    front_end: FrontEnd, packages: Packages, guarded: Served
) -> None:
    hook = DOCUMENT.snippet("React Hook Example", at=guarded.address)
    await front_end.mount(packages, REACT, hook, MOUNTED)
    await becomes(lambda: front_end.sockets and front_end.sockets[0].is_closed())
    await front_end.holds("!hook.isConnected")


async def test_the_recommended_strategy_is_back_after_a_restart(
    front_end: FrontEnd, own_brain: OwnBrain, connection: asyncpg.Connection
) -> None:
    async with own_brain() as first:
        at = f"localhost:{first.port}"
        await front_end.run("const token = 'test-123';")
        await front_end.run(DOCUMENT.snippet("Recommended Reconnection Strategy", at=at))
        await front_end.run("connect();")
        await becomes(lambda: front_end.sockets)
        await connection.execute(AGENT)
        assert is_as_printed(await front_end.next_message(), ONLINE)
    await becomes(lambda: front_end.sockets[0].is_closed())
    async with own_brain(first.port):
        await front_end.holds("reconnectAttempts === 0")
        await connection.execute("DELETE FROM agents")
        found = await front_end.next_message()
        assert (found["type"], found["payload"]["status"]) == ("agent:status", "offline")


@pytest.mark.usefixtures("curl")
async def test_the_health_is_as_printed(served: Served) -> None:
    printed = DOCUMENT.message("Health Check", 2)
    command = DOCUMENT.snippet("Health Check", at=served.address)
    answer: dict[str, Any] = json.loads((await ended(("bash", "-c", command), DIRECTLY)).stdout)
    assert kinds(answer) == kinds(printed)
    assert (answer["status"], answer["gateway"]) == ("ok", "connected")
