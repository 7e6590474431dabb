"""Signs of life: servers send them whenever their time has come."""

from __future__ import annotations

from typing import Any

from websockets.asyncio.client import ClientConnection

from tests.end_to_end.brain import message

TYPES = ("ping", "heartbeat")


def is_sign(value: Any) -> bool:
    return isinstance(value, dict) and value.get("type") in TYPES


async def next_told(client: ClientConnection) -> dict[str, Any]:
    """Return the next message that is none."""
    while is_sign(told := await message(client)):
        pass
    return told
