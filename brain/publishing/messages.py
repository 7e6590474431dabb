"""
Publishing messages from a backend.

    from brain.publishing.messages import publish

    await publish("news", "greeting", {"text": "hello"})
    await publish("news", "reminder", {"text": "your turn"}, recipient="ann")

The call connects to the database that Brain's settings name (`BRAIN_DATABASE_URL` or
`DATABASE_URL`), or to Brain's embedded server where one runs. Inside a transaction of the
`connection` that is passed, the message is sent when that commits, and not at all otherwise.
"""

from __future__ import annotations

from typing import Any

from brain.database import publish as messages
from brain.database.connection import Queryable
from brain.publishing.connection import chosen


async def publish(
    channel: str,
    type: str,
    data: Any = None,
    *,
    recipient: str | None = None,
    connection: Queryable | None = None,
) -> None:
    """
    Publish to all subscribers of a channel, or to the user `recipient`; `data` is any JSON value.

    Raises `MessageRefused` if it is too large or not JSON, the channel, the type or the recipient
    is empty, or the channel is an internal one, `brain.…`.
    """
    async with chosen(connection) as database:
        await messages.publish(database, channel, type, {} if data is None else data, recipient)
