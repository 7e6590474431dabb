"""Messages that no row stands for."""

from __future__ import annotations

from typing import Any

import asyncpg
import orjson

from brain.database.connection import Queryable, told
from brain.errors import MessageRefused


async def publish(connection: Queryable, channel: str, type: str, data: Any) -> None:
    """Put a message into the log, to be told with the transaction. Raises `MessageRefused`."""
    try:
        text = orjson.dumps(data).decode()
        await connection.execute(
            "SELECT brain.publish($1, $2, $3::text::jsonb)", channel, type, text
        )
    except (
        TypeError,  # no JSON
        asyncpg.InvalidParameterValueError,
        asyncpg.ProgramLimitExceededError,
        asyncpg.DataError,
    ) as error:
        raise MessageRefused(f"the message cannot be published: {told(error)}") from error
