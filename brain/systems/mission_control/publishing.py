"""
Publishing agents and sessions to Mission Control's clients, from a Python backend.

    from brain.systems.mission_control.publishing import (
        broadcast_agent_status,
        broadcast_session_activity,
    )

    await broadcast_agent_status("agent-123", "online")
    await broadcast_session_activity("agent-123", "session-456", "User said: Hello")

They publish as `brain.publishing.messages` does. A program that writes to the tables `agents` and
`sessions` need not call them.

Source: Mission Control's WebSocket API, tests/seeds/documents/4-mission-control.md.
"""

from __future__ import annotations

from typing import get_args

from brain.database.connection import Queryable
from brain.errors import MessageRefused
from brain.publishing.messages import publish
from brain.systems.shared_tables.agents.rows import Shown


async def broadcast_agent_status(
    agent_id: str, status: Shown, *, connection: Queryable | None = None
) -> None:
    """Publish that an agent is online, offline, or in error. Raises `MessageRefused`."""
    if status not in get_args(Shown):
        raise MessageRefused(
            f"an agent is shown as {', '.join(get_args(Shown))}, not as {status!r}"
        )
    data = {"agentId": agent_id, "status": status}
    await publish("agents", "agent:status", data, connection=connection)


async def broadcast_session_activity(
    agent_id: str, session_id: str, last_message: str, *, connection: Queryable | None = None
) -> None:
    """Publish the last message in a session of an agent. Raises `MessageRefused`."""
    data = {"agentId": agent_id, "sessionId": session_id, "lastMessage": last_message}
    await publish("sessions", "session:activity", data, connection=connection)
