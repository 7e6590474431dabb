from __future__ import annotations

import ast
import inspect
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from brain.errors import MessageRefused
from brain.message.event import Event
from brain.message.timestamps import epoch_milliseconds
from brain.message.wire_format import WireFormat
from brain.systems.channels import publishing as events
from brain.systems.channels.publishing import EventChannel, emit_event, emit_mission_completed
from brain.systems.channels.wire_format import ChannelsFormat
from brain.systems.cloud_agents import publishing as cloud_agents
from brain.systems.cloud_agents.wire_format import CloudAgentsFormat
from brain.systems.mission_control import publishing as mission_control
from brain.systems.mission_control.wire_format import MissionControlFormat
from tests.database.log_reading import events_after, reading
from tests.seeds.printed import printed, snippets

DOCUMENT = "2-brain-websocket-system.md"


def calls() -> list[str]:
    """Return the calls of emitters as the document prints them, but for the import path."""
    emitting = [snippet for snippet in snippets(DOCUMENT, "python") if "emit_" in snippet]
    # The rest of a snippet is an example of what not to do.
    good = [snippet.partition("# ❌ BAD")[0] for snippet in emitting]
    return [
        snippet.replace("backend.app.core.events", "brain.systems.channels.publishing").replace(
            "{...}", "{}"
        )
        for snippet in good
    ]


async def run(snippet: str, names: dict[str, Any]) -> None:
    """Run statements that may use `await` at the top level."""
    code = compile(snippet, "printed", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    running = eval(code, names)
    if inspect.isawaitable(running):
        await running


async def test_the_printed_calls_run_as_they_stand(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BRAIN_DATABASE_URL", database)
    names: dict[str, Any] = {**vars(events), "time": time}
    async with reading(database) as log:
        start = await log.tick()
        for snippet in calls():
            await run(snippet, names)
        found = await events_after(log, start)

    assert [(event.channel, event.type, data_of(event)) for event in found[:-2]] == [
        (
            "missions",
            "mission_created",
            {"mission_id": "mission_123", "name": "Deploy Application", "priority": "high"},
        ),
        (
            "missions",
            "mission_completed",
            {"mission_id": "mission_123", "result": {"status": "success"}},
        ),
        (
            "missions",
            "mission_failed",
            {"mission_id": "mission_123", "error": "Deployment failed: timeout"},
        ),
        ("agents", "agent_started", {"agent_id": "ops_agent"}),
        (
            "agents",
            "agent_heartbeat",
            {"agent_id": "ops_agent", "status": {"health": "good", "tasks": 5}},
        ),
        ("agents", "agent_error", {"agent_id": "ops_agent", "error": "Task execution failed"}),
        (
            "system",
            "system_alert",
            {
                "level": "warning",
                "message": "High memory usage detected",
                "details": {"memory_percent": 92.5},
            },
        ),
        ("system", "system_health", {"status": "healthy", "checks": {}}),
        ("tasks", "task_started", {"task_id": "task_abc123", "task_name": "send_email"}),
        (
            "tasks",
            "task_completed",
            {"task_id": "task_abc123", "task_name": "send_email", "result": {"sent": True}},
        ),
    ]
    custom, good = found[-2:]
    assert (custom.channel, custom.type) == ("system", "custom_event")
    assert data_of(custom)["custom_field"] == "value"
    assert (good.channel, good.type) == ("missions", "mission_completed")


def data_of(event: Event) -> Any:
    """Return what was published."""
    return json.loads(event.data or "")


@asynccontextmanager
async def published(database: str) -> AsyncIterator[list[Event]]:
    """Yield a list that holds, after the block, the events that were published in it."""
    found: list[Event] = []
    async with reading(database) as log:
        start = await log.tick()
        yield found
        found += await events_after(log, start)


async def test_every_event_of_every_standard_channel_has_an_emitter(
    database: str, connection: asyncpg.Connection
) -> None:
    to: dict[str, Any] = {"connection": connection}
    async with published(database) as found:
        await events.emit_mission_created("m", {"name": "a"}, **to)
        await events.emit_mission_started("m", **to)
        await events.emit_mission_completed("m", **to)
        await events.emit_mission_failed("m", "why", **to)
        await events.emit_agent_started("a", **to)
        await events.emit_agent_stopped("a", **to)
        await events.emit_agent_heartbeat("a", {"health": "good"}, **to)
        await events.emit_agent_error("a", "why", **to)
        await events.emit_system_startup(**to)
        await events.emit_system_shutdown({"reason": "update"}, **to)
        await events.emit_system_health({"status": "healthy"}, **to)
        await events.emit_system_alert("warning", "High memory usage detected", **to)
        await events.emit_task_queued("t", "send_email", **to)
        await events.emit_task_started("t", "send_email", **to)
        await events.emit_task_completed("t", "send_email", **to)
        await events.emit_task_failed("t", "send_email", "why", **to)
        await events.emit_audit_log({"action": "login", "user": "ann"}, **to)
        await events.emit_metrics_update({"cpu_percent": 12.5}, **to)

    assert [(event.channel, event.type, data_of(event)) for event in found] == [
        ("missions", "mission_created", {"mission_id": "m", "name": "a"}),
        ("missions", "mission_started", {"mission_id": "m"}),
        ("missions", "mission_completed", {"mission_id": "m", "result": None}),
        ("missions", "mission_failed", {"mission_id": "m", "error": "why"}),
        ("agents", "agent_started", {"agent_id": "a"}),
        ("agents", "agent_stopped", {"agent_id": "a"}),
        ("agents", "agent_heartbeat", {"agent_id": "a", "status": {"health": "good"}}),
        ("agents", "agent_error", {"agent_id": "a", "error": "why"}),
        ("system", "system_startup", {}),
        ("system", "system_shutdown", {"reason": "update"}),
        ("system", "system_health", {"status": "healthy"}),
        (
            "system",
            "system_alert",
            {"level": "warning", "message": "High memory usage detected", "details": {}},
        ),
        ("tasks", "task_queued", {"task_id": "t", "task_name": "send_email"}),
        ("tasks", "task_started", {"task_id": "t", "task_name": "send_email"}),
        ("tasks", "task_completed", {"task_id": "t", "task_name": "send_email", "result": None}),
        ("tasks", "task_failed", {"task_id": "t", "task_name": "send_email", "error": "why"}),
        ("audit", "audit_log", {"action": "login", "user": "ann"}),
        ("metrics", "metrics_update", {"cpu_percent": 12.5}),
    ]
    assert {event.channel for event in found} == set(EventChannel)


async def test_what_is_emitted_in_a_transaction_is_published_if_that_commits(
    database: str, connection: asyncpg.Connection
) -> None:
    async with reading(database) as log:
        start = await log.tick()
        transaction = connection.transaction()
        await transaction.start()
        await emit_mission_completed("mission_123", {"status": "no"}, connection=connection)
        await mission_control.broadcast_agent_status("a", "online", connection=connection)
        await cloud_agents.broadcast_agent_status(
            {"agentName": "A", "state": "idle"}, connection=connection
        )
        await transaction.rollback()
        assert await events_after(log, start) == []

        async with connection.transaction():
            await emit_mission_completed("mission_123", {"status": "yes"}, connection=connection)
            assert await events_after(log, start) == []
        (event,) = await events_after(log, start)

    assert data_of(event)["result"] == {"status": "yes"}


async def test_an_event_may_be_emitted_on_any_channel(
    database: str, connection: asyncpg.Connection
) -> None:
    async with published(database) as found:
        await emit_event("news", "greeting", {}, connection=connection)
    (event,) = found

    assert (event.channel, event.type, data_of(event)) == ("news", "greeting", {})


def message(wire_format: WireFormat, event: Event) -> dict[str, Any]:
    text = wire_format.render(event)
    assert text is not None
    parsed: dict[str, Any] = json.loads(text)
    return parsed


async def test_clients_of_mission_control_get_what_is_broadcast(
    database: str, connection: asyncpg.Connection
) -> None:
    async with published(database) as found:
        await mission_control.broadcast_agent_status("agent-123", "online", connection=connection)
        await mission_control.broadcast_session_activity(
            "agent-123", "session-456", "User said: Hello", connection=connection
        )
    status, activity = found

    for event, data in (
        (status, {"agentId": "agent-123", "status": "online"}),
        (
            activity,
            {
                "agentId": "agent-123",
                "sessionId": "session-456",
                "lastMessage": "User said: Hello",
            },
        ),
    ):
        sent = message(MissionControlFormat(), event)
        (expected,) = printed("4-mission-control.md", sent["type"])
        assert sent["payload"].keys() == expected["payload"].keys()
        assert sent["payload"] == {
            **data,
            "timestamp": epoch_milliseconds(event.at),
        }


async def test_clients_of_cloud_agents_get_what_is_broadcast(
    database: str, connection: asyncpg.Connection
) -> None:
    status, chat = (
        printed("5-code-cloud-agents.md", type)[0]["data"]
        for type in ("agent_status", "chat_message")
    )

    async with published(database) as found:
        await cloud_agents.broadcast_agent_status(status, connection=connection)
        await cloud_agents.broadcast_chat_message(chat, connection=connection)

    sent = [message(CloudAgentsFormat(), event) for event in found]
    assert [(one["type"], one["data"]) for one in sent] == [
        ("agent_status", status),
        ("chat_message", chat),
    ]


async def test_all_users_or_one_are_notified(database: str, connection: asyncpg.Connection) -> None:
    async with published(database) as found:
        await cloud_agents.send_notification("success", "All tests passed!", connection=connection)
        await cloud_agents.send_notification("error", "Failed", "user-123", connection=connection)

    assert [event.recipient for event in found] == [None, "user-123"]
    sent = message(CloudAgentsFormat(), found[0])
    (expected,) = printed("5-code-cloud-agents.md", "notification")
    assert {**sent, "timestamp": expected["timestamp"]} == expected


async def test_clients_of_channels_get_everything_that_is_broadcast_on_agents(
    database: str, connection: asyncpg.Connection
) -> None:
    async with published(database) as found:
        await mission_control.broadcast_agent_status("a", "error", connection=connection)
        await cloud_agents.broadcast_agent_status(
            {"agentName": "A", "state": "idle"}, connection=connection
        )
        await events.emit_agent_started("a", connection=connection)

    sent = [message(ChannelsFormat(), event) for event in found]
    assert [(one["type"], one["channel"], one["data"]) for one in sent] == [
        ("agent:status", "agents", {"agentId": "a", "status": "error"}),
        ("agent_status", "agents", {"agentName": "A", "state": "idle"}),
        ("agent_started", "agents", {"agent_id": "a"}),
    ]


ASLEEP: Any = "asleep"
FATAL: Any = "fatal"


@pytest.mark.parametrize(
    ("refused", "reason"),
    [
        (lambda: emit_event("", "a", {}), "channel"),
        (lambda: emit_event("a", "", {}), "type"),
        (lambda: events.emit_metrics_update({"a": {1, 2}}), "JSON"),
        (lambda: mission_control.broadcast_agent_status("a", ASLEEP), "not as 'asleep'"),
        (
            lambda: cloud_agents.broadcast_agent_status({"agentName": "A", "state": "asleep"}),
            "state: ",
        ),
        (lambda: cloud_agents.broadcast_agent_status({"state": "idle"}), "agentName: "),
        (
            lambda: cloud_agents.broadcast_agent_status(
                {"agentName": "A", "state": "idle", "curentTask": "x"}
            ),
            "curentTask: ",
        ),
        (lambda: cloud_agents.broadcast_chat_message({"content": "x"}), "conversationId: "),
        (lambda: cloud_agents.send_notification(FATAL, "x"), "level: "),
    ],
)
async def test_a_message_that_clients_would_not_understand_is_refused(
    database: str, monkeypatch: pytest.MonkeyPatch, refused: Any, reason: str
) -> None:
    monkeypatch.setenv("BRAIN_DATABASE_URL", database)

    with pytest.raises(MessageRefused, match=reason):
        await refused()


@pytest.mark.postgres_versions
async def test_what_is_too_large_is_not_broadcast(connection: asyncpg.Connection) -> None:
    await connection.execute(
        "CREATE TABLE large AS SELECT jsonb_build_object('a', repeat('x', 5000000)) AS data"
    )
    with pytest.raises(asyncpg.ProgramLimitExceededError, match="262144"):
        await connection.execute("SELECT brain.broadcast('news', data) FROM large")
    with pytest.raises(asyncpg.InvalidParameterValueError, match="255"):
        await connection.execute("SELECT brain.broadcast(repeat('n', 256))")
