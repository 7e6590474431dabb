"""
Publishing agents, chats and notifications to Code Cloud Agents' clients, from a Python backend.

    from brain.systems.cloud_agents.publishing import broadcast_agent_status, send_notification

    await broadcast_agent_status({"agentName": "CLOUD_ASSISTANT", "state": "working"})
    await send_notification("success", "All tests passed!")
    await send_notification("error", "Task failed", "user-123")

They publish as `brain.publishing.messages` does, and raise `MessageRefused` for what the clients
would not understand. A program that writes to the tables `agents` and `messages` need not call the
first two.

Source: the WebSocket communication of Code Cloud Agents,
tests/seeds/documents/5-code-cloud-agents.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from brain.database.connection import Queryable
from brain.errors import MessageRefused
from brain.message.wire_model import WireModel
from brain.publishing.connection import chosen
from brain.publishing.messages import publish
from brain.systems.cloud_agents.wire_format import (
    AgentStatusData,
    ChatMessageData,
    Level,
    NotificationData,
)


async def broadcast_agent_status(
    status: Mapping[str, Any], *, connection: Queryable | None = None
) -> None:
    """Publish what an agent does: agentName, state, and maybe currentTask and progress."""
    data = checked(AgentStatusData, status)
    await publish("agents", "agent_status", data, connection=connection)


async def broadcast_chat_message(
    message: Mapping[str, Any], *, connection: Queryable | None = None
) -> None:
    """Publish a message: conversationId, messageId, content, sender and timestamp."""
    data = checked(ChatMessageData, message)
    await publish("messages", "chat_message", data, connection=connection)


async def send_notification(
    level: Level, message: str, user_id: str | None = None, *, connection: Queryable | None = None
) -> None:
    """Publish a notification to all clients, or to one user."""
    data = checked(NotificationData, {"level": level, "message": message})
    await publish("notifications", "notification", data, recipient=user_id, connection=connection)


def checked(model: type[WireModel], data: Mapping[str, Any]) -> dict[str, Any]:
    """Return `data` as clients get it; raises `MessageRefused`."""
    try:
        return model.model_validate(dict(data)).model_dump(mode="json", exclude_none=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise MessageRefused(f"{where}: {first['msg']}") from error


async def get_clients_count(*, connection: Queryable | None = None) -> int:
    """Return how many clients are connected, of any kind and to any process."""
    async with chosen(connection) as database:
        return int(await database.fetchval("SELECT clients FROM brain.cluster_counts()"))


async def get_authenticated_clients_count(*, connection: Queryable | None = None) -> int:
    """Return how many of them have a valid token."""
    async with chosen(connection) as database:
        return int(await database.fetchval("SELECT authenticated FROM brain.cluster_counts()"))
