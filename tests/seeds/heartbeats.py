"""Heartbeats: servers send them at any time, between other messages."""

from __future__ import annotations

from typing import Any

from websockets.asyncio.client import ClientConnection

from tests.end_to_end.brain import message

TYPES = ("ping", "heartbeat")


def is_heartbeat(value: Any) -> bool:
    return isinstance(value, dict) and value.get("type") in TYPES


async def next_message(client: ClientConnection) -> dict[str, Any]:
    """Return the next message that is no heartbeat."""
    while is_heartbeat(found := await message(client)):
        pass
    return found
