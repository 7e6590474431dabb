"""
Publishing on the standard channels, from a Python backend.

    from brain.systems.channels.publishing import emit_mission_completed, emit_system_alert

    await emit_mission_completed(mission_id="mission_123", result={"status": "success"})
    await emit_system_alert(level="warning", message="High memory usage detected")

They publish as `brain.publishing.messages` does: inside a transaction of the `connection` that is
passed, the message is sent when that commits, and not at all otherwise. A program that writes to
the tables `missions`, `agents` or `tasks` need not call them: the trigger publishes every change.

Source: the BRAiN WebSocket System, tests/seeds/documents/2-brain-websocket-system.md. Where that
shows no call, the arguments are those of the calls beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from brain.database.connection import Queryable
from brain.publishing.messages import publish


class EventChannel(StrEnum):
    """The standard channels."""

    MISSIONS = "missions"
    AGENTS = "agents"
    SYSTEM = "system"
    TASKS = "tasks"
    AUDIT = "audit"
    METRICS = "metrics"


async def emit_event(
    channel: EventChannel | str,
    event_type: str,
    data: Mapping[str, Any],
    *,
    connection: Queryable | None = None,
) -> None:
    """
    Publish an event to all subscribers of a channel.

    Raises `MessageRefused` if it is too large or not JSON, or the channel or the type is empty.
    """
    await publish(str(channel), event_type, dict(data), connection=connection)


async def emit_mission_created(
    mission_id: str, mission_data: Mapping[str, Any], *, connection: Queryable | None = None
) -> None:
    data = {"mission_id": mission_id, **mission_data}
    await emit_event(EventChannel.MISSIONS, "mission_created", data, connection=connection)


async def emit_mission_started(mission_id: str, *, connection: Queryable | None = None) -> None:
    data = {"mission_id": mission_id}
    await emit_event(EventChannel.MISSIONS, "mission_started", data, connection=connection)


async def emit_mission_completed(
    mission_id: str, result: Any = None, *, connection: Queryable | None = None
) -> None:
    data = {"mission_id": mission_id, "result": result}
    await emit_event(EventChannel.MISSIONS, "mission_completed", data, connection=connection)


async def emit_mission_failed(
    mission_id: str, error: str, *, connection: Queryable | None = None
) -> None:
    data = {"mission_id": mission_id, "error": error}
    await emit_event(EventChannel.MISSIONS, "mission_failed", data, connection=connection)


async def emit_agent_started(agent_id: str, *, connection: Queryable | None = None) -> None:
    data = {"agent_id": agent_id}
    await emit_event(EventChannel.AGENTS, "agent_started", data, connection=connection)


async def emit_agent_stopped(agent_id: str, *, connection: Queryable | None = None) -> None:
    data = {"agent_id": agent_id}
    await emit_event(EventChannel.AGENTS, "agent_stopped", data, connection=connection)


async def emit_agent_heartbeat(
    agent_id: str, status: Mapping[str, Any], *, connection: Queryable | None = None
) -> None:
    data = {"agent_id": agent_id, "status": dict(status)}
    await emit_event(EventChannel.AGENTS, "agent_heartbeat", data, connection=connection)


async def emit_agent_error(
    agent_id: str, error: str, *, connection: Queryable | None = None
) -> None:
    data = {"agent_id": agent_id, "error": error}
    await emit_event(EventChannel.AGENTS, "agent_error", data, connection=connection)


async def emit_system_startup(
    details: Mapping[str, Any] | None = None, *, connection: Queryable | None = None
) -> None:
    data = details or {}
    await emit_event(EventChannel.SYSTEM, "system_startup", data, connection=connection)


async def emit_system_shutdown(
    details: Mapping[str, Any] | None = None, *, connection: Queryable | None = None
) -> None:
    data = details or {}
    await emit_event(EventChannel.SYSTEM, "system_shutdown", data, connection=connection)


async def emit_system_health(
    health: Mapping[str, Any], *, connection: Queryable | None = None
) -> None:
    await emit_event(EventChannel.SYSTEM, "system_health", health, connection=connection)


async def emit_system_alert(
    level: str,
    message: str,
    details: Mapping[str, Any] | None = None,
    *,
    connection: Queryable | None = None,
) -> None:
    data = {"level": level, "message": message, "details": dict(details or {})}
    await emit_event(EventChannel.SYSTEM, "system_alert", data, connection=connection)


async def emit_task_queued(
    task_id: str, task_name: str, *, connection: Queryable | None = None
) -> None:
    data = {"task_id": task_id, "task_name": task_name}
    await emit_event(EventChannel.TASKS, "task_queued", data, connection=connection)


async def emit_task_started(
    task_id: str, task_name: str, *, connection: Queryable | None = None
) -> None:
    data = {"task_id": task_id, "task_name": task_name}
    await emit_event(EventChannel.TASKS, "task_started", data, connection=connection)


async def emit_task_completed(
    task_id: str, task_name: str, result: Any = None, *, connection: Queryable | None = None
) -> None:
    data = {"task_id": task_id, "task_name": task_name, "result": result}
    await emit_event(EventChannel.TASKS, "task_completed", data, connection=connection)


async def emit_task_failed(
    task_id: str, task_name: str, error: str, *, connection: Queryable | None = None
) -> None:
    data = {"task_id": task_id, "task_name": task_name, "error": error}
    await emit_event(EventChannel.TASKS, "task_failed", data, connection=connection)


async def emit_audit_log(entry: Mapping[str, Any], *, connection: Queryable | None = None) -> None:
    await emit_event(EventChannel.AUDIT, "audit_log", entry, connection=connection)


async def emit_metrics_update(
    metrics: Mapping[str, Any], *, connection: Queryable | None = None
) -> None:
    await emit_event(EventChannel.METRICS, "metrics_update", metrics, connection=connection)
