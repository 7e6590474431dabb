"""The document of the BRAiN WebSocket System: its channels, against a running Brain."""

from __future__ import annotations

import ast
import inspect
import json
import re
import sys
import time
import types
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import asyncpg
import pytest
from websockets.asyncio.client import ClientConnection

from brain.errors import MessageRefused
from brain.systems.channels import publishing as events
from brain.systems.cloud_agents.publishing import send_notification
from tests.seeds.clients import received
from tests.seeds.comparing import is_as_printed
from tests.seeds.conftest import Served
from tests.seeds.heartbeats import next_message
from tests.seeds.snippets import FOLDER, Document

DOCUMENT = Document("2-brain-websocket-system.md", "localhost:8000")

CHANNELS: dict[str, list[str]] = {
    channel: listed.split(", ")
    for channel, listed in re.findall(
        r"^\| `(\w+)` \| .+ \| (.+) \|$",
        (FOLDER / DOCUMENT.name).read_text(encoding="utf-8"),
        re.MULTILINE,
    )
}
"""The table of standard channels: the events of each."""

SUBSCRIBED = DOCUMENT.message("Subscribing to Channels", 2)

# Arguments for the emitter of each event; the document does not print a call of every one.
EMITTED: dict[str, tuple[Any, ...]] = {
    "mission_created": ("m", {"name": "Deploy Application"}),
    "mission_started": ("m",),
    "mission_completed": ("m", {"status": "success"}),
    "mission_failed": ("m", "timeout"),
    "agent_started": ("a",),
    "agent_stopped": ("a",),
    "agent_heartbeat": ("a", {"health": "good"}),
    "agent_error": ("a", "Task execution failed"),
    "system_startup": (),
    "system_shutdown": ({"reason": "update"},),
    "system_health": ({"status": "healthy"},),
    "system_alert": ("warning", "High memory usage detected"),
    "task_queued": ("t", "send_email"),
    "task_started": ("t", "send_email"),
    "task_completed": ("t", "send_email", {"sent": True}),
    "task_failed": ("t", "send_email", "timeout"),
    "audit_log": ({"action": "login"},),
    "metrics_update": ({"cpu_percent": 12.5},),
}

ROWS = {
    "missions": (
        "INSERT INTO missions (id) VALUES ('m')",
        "UPDATE missions SET status = 'started'",
        "UPDATE missions SET status = 'completed'",
        "UPDATE missions SET status = 'failed'",
    ),
    "agents": (
        "INSERT INTO agents (id) VALUES ('a')",
        "UPDATE agents SET status = 'stopped'",
        "UPDATE agents SET heartbeat_at = now()",
        "UPDATE agents SET status = 'error'",
    ),
    "tasks": (
        "INSERT INTO tasks (id) VALUES ('t')",
        "UPDATE tasks SET status = 'running'",
        "UPDATE tasks SET status = 'completed'",
        "UPDATE tasks SET status = 'failed'",
    ),
}

# The code after this is printed as a bad example.
BAD = "# ❌ BAD"


def type_of(channel: str, event: str) -> str:
    """Return the type of an event of the table, which names some in full and one in the plural."""
    if event.startswith(channel):
        return event
    return f"{channel.removesuffix('s')}_{'alert' if event == 'alerts' else event}"


def printed_calls() -> list[str]:
    """Return the blocks in which emitters are called or imported."""
    blocks = [DOCUMENT.code("Backend Event Emitters", number) for number in range(1, 6)]
    pattern = DOCUMENT.code("Server-Side").partition(BAD)
    assert pattern[1]
    # A dict with dots stands for any dict.
    whole = "\n".join(blocks).replace('"checks": {...}', '"checks": {}')
    return [whole, DOCUMENT.code("Custom Events"), pattern[0]]


class Emitters:
    """Replaces the printed module: calls Brain's emitters, and records the calls."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        """The type and the data that each call has to send."""
        self.names: dict[str, Any] = {"time": time, "EventChannel": events.EventChannel}
        for name, emitter in vars(events).items():
            if name.startswith("emit_"):
                self.names[name] = self._noted(name, emitter, connection)

    async def run(self, code: str) -> None:
        """Run statements that may contain `await`."""
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        running = eval(compile(code, "the document", "exec", flags=flags), dict(self.names))
        if inspect.isawaitable(running):
            await running

    def _noted(
        self, name: str, emitter: Callable[..., Awaitable[None]], connection: asyncpg.Connection
    ) -> Callable[..., Awaitable[None]]:
        async def emit(*data: Mapping[str, Any], **named: Any) -> None:
            await emitter(*data, **named, connection=connection)
            if name == "emit_event":
                self.calls.append((named["event_type"], named["data"]))
                return
            fields = {key: value for key, value in named.items() if key != "mission_data"}
            for fields_of_its_own in (*data, named.get("mission_data", {})):
                fields |= fields_of_its_own
            self.calls.append((name.removeprefix("emit_"), fields))

        return emit


async def subscribe_to_all(connection: ClientConnection) -> None:
    """Subscribe to all standard channels."""
    for channel in CHANNELS:
        await connection.send(json.dumps({"type": "subscribe", "channel": channel}))
        assert is_as_printed(await next_message(connection), SUBSCRIBED | {"channel": channel})


async def test_what_the_printed_calls_emit_is_sent_to_subscribers_with_its_arguments(
    served: Served, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    emitters = Emitters(sql)
    for name in ("backend", "backend.app", "backend.app.core", "backend.app.core.events"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    vars(sys.modules["backend.app.core.events"]).update(emitters.names)

    async with served.brain.client("/ws/connect") as connection:
        await subscribe_to_all(connection)
        for code in printed_calls():
            await emitters.run(code)
        messages = await received(connection, len(emitters.calls))

    assert len(messages) == sum(
        len(re.findall(r"^await emit_\w+\(", code, re.MULTILINE)) for code in printed_calls()
    )
    assert [(message["type"], message["data"]) for message in messages] == emitters.calls
    channels = {
        type_of(channel, event): channel for channel in CHANNELS for event in CHANNELS[channel]
    }
    channels["custom_event"] = "system"
    for message in messages:
        assert list(message) == ["type", "channel", "data", "timestamp"]
        assert message["channel"] == channels[message["type"]]
        assert isinstance(message["timestamp"], float)


async def test_every_event_of_the_table_of_channels_is_sent_when_it_is_emitted(
    served: Served, sql: asyncpg.Connection
) -> None:
    table = [
        (channel, type_of(channel, event)) for channel in CHANNELS for event in CHANNELS[channel]
    ]
    assert [type for _, type in table] == list(EMITTED)
    async with served.brain.client("/ws/connect") as connection:
        await subscribe_to_all(connection)
        for type, arguments in EMITTED.items():
            await vars(events)[f"emit_{type}"](*arguments, connection=sql)
        messages = await received(connection, len(table))
    assert [(message["channel"], message["type"]) for message in messages] == table


@pytest.mark.parametrize("channel", ROWS)
async def test_every_event_of_the_table_of_channels_is_sent_when_a_row_turns_to_it(
    served: Served, sql: asyncpg.Connection, channel: str
) -> None:
    async with served.brain.client(f"/ws/channel/{channel}") as connection:
        for statement in ROWS[channel]:
            await sql.execute(statement)
        messages = await received(connection, len(ROWS[channel]))
    assert [message["type"] for message in messages] == [
        type_of(channel, event) for event in CHANNELS[channel]
    ]
    assert {message["channel"] for message in messages} == {channel}


async def test_what_an_emitter_refuses_is_not_sent(served: Served, sql: asyncpg.Connection) -> None:
    async with served.brain.client("/ws/channel/metrics") as connection:
        with pytest.raises(MessageRefused, match="JSON"):
            await events.emit_metrics_update({"cpu_percent": {1, 2}}, connection=sql)
        with pytest.raises(MessageRefused, match="type"):
            await events.emit_event(events.EventChannel.METRICS, "", {}, connection=sql)
        await events.emit_metrics_update({"cpu_percent": 12.5}, connection=sql)
        assert (await next_message(connection))["data"] == {"cpu_percent": 12.5}


async def test_what_is_sent_to_a_user_is_received_by_every_connection_of_that_user_alone(
    served: Served, sql: asyncpg.Connection
) -> None:
    path = "/ws/channel/notifications?token="
    async with served.brain.client(path + "ann") as one, served.brain.client(path + "ann") as two:
        async with served.brain.client(path + "bob") as other:
            await send_notification("error", "for ann", "user_ann", connection=sql)
            await send_notification("info", "for all", connection=sql)
            for connection in (one, two):
                messages = await received(connection, 2)
                assert [each["data"]["message"] for each in messages] == ["for ann", "for all"]
            assert (await next_message(other))["data"]["message"] == "for all"


MALFORMED = (
    "hello",
    "[1]",
    "{}",
    '{"type": "hello"}',
    '{"type": "subscribe"}',
    '{"type": "subscribe", "channel": 5}',
    '{"type": "subscribe", "channel": ""}',
    '{"type": "unsubscribe", "channel": null}',
)


async def test_a_message_of_no_valid_type_is_answered_with_an_error_and_the_connection_lives(
    served: Served,
) -> None:
    async with served.brain.client("/ws/connect") as connection:
        for text in MALFORMED:
            await connection.send(text)
            answer = await next_message(connection)
            assert (answer["type"], bool(answer["error"])) == ("error", True), text
        await connection.send(json.dumps({"type": "subscribe", "channel": "missions"}))
        assert is_as_printed(await next_message(connection), SUBSCRIBED)
