"""Publishes a message to every client of channels, whatever it has subscribed to."""

from __future__ import annotations

from typing import Any

from brain.database.connection import Queryable
from brain.database.publish import append_message, json_of

BROADCAST = "SELECT brain.broadcast($1, $2::text::jsonb)"


async def broadcast(connection: Queryable, type: str, data: Any) -> None:
    """Append a message to the log, in the caller's transaction. Raises `MessageRefused`."""
    await append_message(connection, BROADCAST, type, json_of(data))
