"""
Publishing messages from a backend.

    from brain.client.messages import publish

    await publish("news", "greeting", {"text": "hello"})
    await publish("news", "reminder", {"text": "your turn"}, audience="ann")

The database is chosen as in `brain.client.tasks`. Inside a transaction of the `connection` that is
passed, clients hear of the message when it commits, and not at all if it does not.
"""

from __future__ import annotations

from typing import Any

from brain.client.connection import chosen
from brain.database import messages
from brain.database.connection import Queryable


async def publish(
    channel: str,
    type: str,
    data: Any = None,
    *,
    audience: str | None = None,
    connection: Queryable | None = None,
) -> None:
    """
    Tell everybody on a channel, or the user `audience` alone; `data` is anything that JSON can say.

    Raises `MessageRefused` if it is too large or not JSON, the channel, the type or the audience is
    empty, or the channel is one of Brain's own, `brain.…`.
    """
    async with chosen(connection) as database:
        await messages.publish(database, channel, type, {} if data is None else data, audience)
