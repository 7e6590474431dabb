"""The clients that the document of the BRAiN WebSocket system prints, verbatim."""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from httpx2 import AsyncClient
from playwright.async_api import expect

from brain.systems.channels.publishing import emit_mission_created
from brain.systems.channels.wire_format import ChannelsFormat
from tests.end_to_end.brain import becomes, ended
from tests.seeds.comparing import is_as_printed, kinds
from tests.seeds.conftest import OwnBrain, Served
from tests.seeds.front_end import REACT, FrontEnd
from tests.seeds.heartbeats import is_heartbeat, next_message
from tests.seeds.impatient import CLIENT_TIMEOUT_SECONDS, HEARTBEAT_SECONDS
from tests.seeds.packages import Packages
from tests.seeds.programs import DIRECTLY, Program, program, typed, wscat
from tests.seeds.snippets import Document

DOCUMENT = Document("2-brain-websocket-system.md", "localhost:8000")

HOOK = DOCUMENT.code("React Hook Example")
MOUNTED = """
function Mounted() { window.hook = useWebSocket('ws://%s/ws/connect'); }
root.render(<Mounted />);
"""
DASHBOARD = "root.render(<MissionDashboard />);"

VUE_MOUNTED = """
import { createApp, toRaw } from 'vue';
const app = createApp({
    setup() { window.hook = useWebSocket('ws://%s/ws/connect'); return () => null; }
});
app.mount('#root');
window.unmount = () => app.unmount();
"""

CONNECTED = DOCUMENT.message("Connecting", 3)
PING = DOCUMENT.message("Heartbeat")
PONG = {"type": "pong"}
SUBSCRIBE = {"type": "subscribe", "channel": "missions"}
SUBSCRIBED = DOCUMENT.message("Subscribing to Channels", 2)
UNSUBSCRIBE = {"type": "unsubscribe", "channel": "missions"}
UNSUBSCRIBED = DOCUMENT.message("Unsubscribing", 2)

CREATE = """
INSERT INTO missions (id, name, priority) VALUES ('mission_123', 'Deploy Application', 'high')
"""
CREATED = {
    "type": "mission_created",
    "channel": "missions",
    "data": {
        "mission_id": "mission_123",
        "name": "Deploy Application",
        "priority": "high",
        "status": "created",
        "result": None,
        "error": None,
    },
    "timestamp": 1703001234.56,
}
COMPLETE = """
UPDATE missions SET status = 'completed', result = '{"status": "success"}'
 WHERE id = 'mission_123'
"""
DEPLOYED = "SELECT brain.publish('missions', 'mission_update', '{\"status\": \"deployed\"}')"


@pytest.fixture
async def connected(front_end: FrontEnd, served: Served, sql: asyncpg.Connection) -> FrontEnd:
    """A page with the example for browsers, which keeps its connection in `ws`."""
    await front_end.run(DOCUMENT.snippet("Connecting", 2, at=served.address))
    assert await front_end.next_logged() == ["Connected"]
    assert is_as_printed(await front_end.next_message(), CONNECTED)
    return front_end


@pytest.fixture
async def pinged(front_end: FrontEnd, impatient: Served) -> FrontEnd:
    """The same, on a Brain with short heartbeats."""
    await front_end.run(DOCUMENT.snippet("Connecting", 2, at=impatient.address))
    return front_end


async def test_the_example_for_browsers_logs_the_welcome_and_the_end(connected: FrontEnd) -> None:
    logged, found = await connected.next_logged()
    assert logged == "Received:"
    assert is_as_printed(found, CONNECTED)

    await connected.run(DOCUMENT.code("Disconnecting"))
    assert await connected.next_logged() == ["Disconnected"]


async def test_pings_are_sent_at_the_documented_interval() -> None:
    assert (ChannelsFormat.heartbeat_seconds, ChannelsFormat.client_timeout_seconds) == (30, 60)


@pytest.mark.parametrize("heading", ["Heartbeat", "Connection Timeout"])
async def test_the_handler_for_pings_answers(pinged: FrontEnd, heading: str) -> None:
    number = 2 if heading == "Heartbeat" else 1
    await pinged.run(DOCUMENT.code(heading, number))
    await becomes(lambda: PONG in pinged.sent)
    assert is_as_printed(pinged.heartbeats[0], PING)


async def test_a_client_that_answers_no_ping_is_disconnected(pinged: FrontEnd) -> None:
    assert await pinged.next_logged() == ["Connected"]
    await pinged.next_logged()
    assert await pinged.next_logged() == ["Disconnected"]
    assert len(pinged.heartbeats) > 1


async def test_a_subscriber_is_sent_the_channel_until_it_unsubscribes(
    connected: FrontEnd, served: Served, sql: asyncpg.Connection
) -> None:
    async with served.brain.client("/ws/channel/missions") as another:

        async def change(statement: str) -> None:
            """Change a mission, and return once the change has been sent to every subscriber."""
            await sql.execute(statement)
            await next_message(another)

        await change("INSERT INTO missions (id) VALUES ('mission_122')")
        await connected.run(DOCUMENT.code("Subscribing to Channels"))
        assert is_as_printed(await connected.next_message(), SUBSCRIBED)
        await change(CREATE)
        assert is_as_printed(await connected.next_message(), CREATED)

        await connected.run(DOCUMENT.code("Unsubscribing"))
        assert is_as_printed(await connected.next_message(), UNSUBSCRIBED)
        await change(COMPLETE)
        await connected.run(DOCUMENT.code("Subscribing to Channels"))
        assert is_as_printed(await connected.next_message(), SUBSCRIBED)
    assert connected.sent == [SUBSCRIBE, UNSUBSCRIBE, SUBSCRIBE]


async def test_the_address_of_a_channel_subscribes_at_once(
    front_end: FrontEnd, served: Served, sql: asyncpg.Connection
) -> None:
    url = DOCUMENT.snippet("Channel-Specific Connection", at=served.address)
    await front_end.run(f"const ws = new WebSocket('{url.strip()}');")
    assert is_as_printed(await front_end.next_message(), CONNECTED)
    await sql.execute(CREATE)
    assert is_as_printed(await front_end.next_message(), CREATED)


async def test_a_token_may_come_with_the_url(front_end: FrontEnd, served: Served) -> None:
    urls = DOCUMENT.snippet("Connecting", at=served.address, fill_in={"<auth_token>": "ann"})
    _, url = urls.split()
    await front_end.run(f"const ws = new WebSocket('{url}');")
    assert is_as_printed(await front_end.next_message(), CONNECTED)


async def test_the_check_of_a_subscription_logs_its_channel(connected: FrontEnd) -> None:
    await connected.next_logged()
    await connected.run(DOCUMENT.code("Messages Not Received"))
    await connected.run(DOCUMENT.code("Subscribing to Channels"))
    assert await connected.next_logged() == ["Successfully subscribed to:", "missions"]


async def test_the_react_hook_subscribes_sends_and_collects_messages(
    front_end: FrontEnd, packages: Packages, impatient: Served
) -> None:
    await front_end.mount(packages, REACT, HOOK, MOUNTED % impatient.address)
    assert await front_end.next_logged() == ["WebSocket connected"]
    await front_end.holds("hook.connected")
    assert is_as_printed(await front_end.next_message(), CONNECTED)

    await front_end.page.evaluate("hook.subscribe('missions')")
    assert is_as_printed(await front_end.next_message(), SUBSCRIBED)
    await front_end.page.evaluate("hook.unsubscribe('missions')")
    assert is_as_printed(await front_end.next_message(), UNSUBSCRIBED)
    await front_end.page.evaluate("hook.sendMessage({ type: 'ping' })")
    await front_end.holds("hook.messages.some(message => message.type === 'pong')")
    await front_end.holds("hook.messages.some(message => message.type === 'ping')")
    await becomes(lambda: PONG in front_end.sent)

    await front_end.page.evaluate("unmount()")
    assert await front_end.next_logged() == ["WebSocket disconnected"]


async def test_the_react_dashboard_lists_what_missions_do(
    front_end: FrontEnd, packages: Packages, served: Served, sql: asyncpg.Connection
) -> None:
    usage = DOCUMENT.snippet("React Hook Example", 2, at=served.address)
    await front_end.mount(packages, REACT, HOOK, usage, DASHBOARD)
    await expect(front_end.page.get_by_role("heading")).to_have_text("Status: Connected")
    await becomes(
        lambda: [one["type"] for one in front_end.received] == ["connected", "subscribed"]
    )

    await sql.execute(CREATE)
    await sql.execute(DEPLOYED)
    # The list has the messages of the channel, and the reply to its subscription, without data.
    created = json.dumps(CREATED["data"], separators=(",", ":"))
    await expect(front_end.page.get_by_role("listitem")).to_have_text(
        ["subscribed:", f"mission_created: {created}", 'mission_update: {"status":"deployed"}']
    )


async def test_the_vue_composable_subscribes_and_collects_messages(
    front_end: FrontEnd, packages: Packages, impatient: Served
) -> None:
    composable = DOCUMENT.code("Vue 3 Example")
    await front_end.mount(packages, composable, VUE_MOUNTED % impatient.address)
    await front_end.holds("hook.connected.value")
    await front_end.page.evaluate("hook.subscribe('missions')")
    await front_end.holds("hook.messages.value.some(message => message.type === 'subscribed')")
    assert is_as_printed(await front_end.next_message(), CONNECTED)
    assert is_as_printed(await front_end.next_message(), SUBSCRIBED)
    await front_end.holds("hook.messages.value.some(message => message.type === 'ping')")
    await becomes(lambda: PONG in front_end.sent)

    await front_end.page.evaluate("unmount()")
    await front_end.holds("!hook.connected.value")


async def test_wscat_subscribes_and_gets_messages(
    tmp_path: Path, packages: Packages, served: Served, sql: asyncpg.Connection
) -> None:
    session = DOCUMENT.snippet("Manual Testing", at=served.address)
    subscribe, pong = typed(session)
    async with wscat(tmp_path, packages, session) as client:
        assert is_as_printed(await client.message(), CONNECTED)
        client.type(subscribe)
        assert is_as_printed(await client.message(), SUBSCRIBED)
        client.type(pong)
        await sql.execute(CREATE)
        assert is_as_printed(await client.message(), CREATED)


@asynccontextmanager
async def python_client(folder: Path, at: str) -> AsyncIterator[Program]:
    script = folder / "client.py"
    script.write_text(DOCUMENT.snippet("Manual Testing", 2, at=at))
    command = (sys.executable, "-u", str(script))
    async with program(folder, command, {}) as client:
        _, welcome = (await client.line()).split("Received: ")
        assert is_as_printed(json.loads(welcome), CONNECTED)
        yield client


async def received(client: Program, *, is_a_heartbeat: bool = False) -> dict[str, Any]:
    """Return the next message that the client in Python prints, as a dictionary."""
    found: dict[str, Any] = ast.literal_eval((await client.line()).removeprefix("Received: "))
    return (
        found
        if is_heartbeat(found) is is_a_heartbeat
        else await received(client, is_a_heartbeat=is_a_heartbeat)
    )


async def test_the_client_in_python_subscribes_and_gets_messages(
    tmp_path: Path, served: Served, sql: asyncpg.Connection
) -> None:
    async with python_client(tmp_path, served.address) as client:
        assert is_as_printed(await received(client), SUBSCRIBED)
        await sql.execute(CREATE)
        assert is_as_printed(await received(client), CREATED)
        await sql.execute(COMPLETE)
        found = await received(client)
        assert (found["type"], found["data"]["result"]) == (
            "mission_completed",
            {"status": "success"},
        )


async def test_the_client_in_python_stays_because_it_answers_pings(
    tmp_path: Path, impatient: Served
) -> None:
    async with python_client(tmp_path, impatient.address) as client:
        assert is_as_printed(await received(client), SUBSCRIBED)
        pings = 0
        while pings * HEARTBEAT_SECONDS < CLIENT_TIMEOUT_SECONDS + 1:
            assert is_as_printed(await received(client, is_a_heartbeat=True), PING)
            pings += 1


async def test_the_reconnecting_client_is_back_after_a_restart(
    front_end: FrontEnd, own_brain: OwnBrain
) -> None:
    await front_end.run(DOCUMENT.code("Client-Side"))
    async with own_brain() as first:
        url = f"ws://localhost:{first.port}/ws/connect"
        await front_end.run(f"const client = new WebSocketClient('{url}')")
        assert await front_end.next_logged() == ["Connected"]
    assert await front_end.next_logged() == ["Disconnected, reconnecting..."]
    async with own_brain(first.port):
        while (logged := await front_end.next_logged()) != ["Connected"]:
            # Until the server is back.
            assert logged == ["Disconnected, reconnecting..."]
        await front_end.run(
            "client.handleMessage = message => console.log(message);"
            "client.ws.send(JSON.stringify({ type: 'subscribe', channel: 'missions' }));"
        )
        logged = await front_end.next_logged()
        if logged[0]["type"] == "connected":
            logged = await front_end.next_logged()
        assert is_as_printed(logged, [SUBSCRIBED])


async def test_the_reconnecting_client_answers_pings(
    front_end: FrontEnd, impatient: Served
) -> None:
    await front_end.run(DOCUMENT.code("Client-Side"))
    url = f"ws://{impatient.address}/ws/connect"
    await front_end.run(f"const client = new WebSocketClient('{url}')")
    await becomes(lambda: PONG in front_end.sent)


@pytest.mark.usefixtures("curl")
async def test_the_troubleshooting_commands_answer(served: Served) -> None:
    commands = DOCUMENT.snippet("Connection Refused", at=served.address)
    info, statistics = [line for line in commands.splitlines() if line.startswith("curl ")]
    about = json.loads((await ended(("bash", "-c", info), DIRECTLY)).stdout)
    assert about["service"] == "brain"
    counts = json.loads((await ended(("bash", "-c", statistics), DIRECTLY)).stdout)
    printed = DOCUMENT.message("HTTP API Endpoints", 7)
    assert kinds({**counts, "channels": {}}) == kinds({**printed, "channels": {}})


async def test_events_of_the_backend_are_sent_to_subscribers(
    served: Served, sql: asyncpg.Connection
) -> None:
    mission = {"name": "Deploy Application", "priority": "high"}
    async with served.brain.client("/ws/channel/missions") as client:
        await emit_mission_created("mission_123", mission, connection=sql)
        found = await next_message(client)
    assert list(found) == list(CREATED)
    assert (found["type"], found["channel"]) == ("mission_created", "missions")
    assert found["data"] == {"mission_id": "mission_123", **mission}


async def test_a_broadcast_to_a_channel_is_sent_and_answered_as_printed(
    served: Served,
) -> None:
    sent = DOCUMENT.message("HTTP API Endpoints", 2)
    printed = DOCUMENT.message("HTTP API Endpoints", 3)
    async with served.brain.client("/ws/channel/missions") as client, AsyncClient() as http:
        answer = await http.post(f"http://{served.address}/api/ws/broadcast", json=sent)
        assert answer.status_code == 200
        found = await next_message(client)
    assert kinds(answer.json()) == kinds(printed)
    assert answer.json()["status"] == "broadcasted"
    assert list(found) == ["type", "channel", "data", "timestamp"]
    assert (found["type"], found["channel"], found["data"]) == (
        sent["type"],
        sent["channel"],
        sent["message"],
    )


async def test_a_broadcast_to_all_is_sent_to_clients_without_subscriptions(served: Served) -> None:
    sent = DOCUMENT.message("HTTP API Endpoints", 5)
    async with served.brain.client("/ws/connect") as client, AsyncClient() as http:
        answer = await http.post(f"http://{served.address}/api/ws/broadcast/all", json=sent)
        assert answer.status_code == 200
        found = await next_message(client)
    assert answer.json()["status"] == "broadcasted"
    assert (found["type"], found["data"]) == (sent["type"], sent["data"])


async def test_the_subscribers_of_a_channel_are_counted_and_listed_as_printed(
    served: Served,
) -> None:
    # The dots stand for further ids.
    printed = DOCUMENT.code("HTTP API Endpoints", 9).replace(", ...", "")
    url = f"http://{served.address}/api/ws/channels/audit"
    async with served.brain.client("/ws/channel/audit"), AsyncClient() as http:
        answer = (await http.get(url)).json()
        while answer["subscribers"] == 0:
            answer = (await http.get(url)).json()
    assert list(answer) == list(json.loads(printed))
    assert (answer["channel"], answer["subscribers"]) == ("audit", 1)
    assert kinds(answer["connection_ids"]) == kinds(["uuid-here"])
