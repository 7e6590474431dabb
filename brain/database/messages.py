"""Messages that no row stands for."""

from __future__ import annotations

from typing import Any

import asyncpg
import orjson

from brain.database.connection import Queryable, told
from brain.errors import MessageRefused

TO_EVERYBODY = "SELECT brain.publish($1, $2, $3::text::jsonb)"
"""Which databases know, too, that lack the migrations of this version."""
TO_ONE = "SELECT brain.publish($1, $2, $3::text::jsonb, $4)"
TO_ALL_CHANNELS = "SELECT brain.announce($1, $2::text::jsonb)"


async def publish(
    connection: Queryable, channel: str, type: str, data: Any, audience: str | None = None
) -> None:
    """
    Put a message into the log, to be told with the transaction: to the user `audience`, or to all.

    Raises `MessageRefused`.
    """
    text = json_of(data)
    if audience is None:
        await put(connection, TO_EVERYBODY, channel, type, text)
    else:
        await put(connection, TO_ONE, channel, type, text, audience)


async def announce(connection: Queryable, type: str, data: Any) -> None:
    """Do the same for all clients of channels, whatever they hear. Raises `MessageRefused`."""
    await put(connection, TO_ALL_CHANNELS, type, json_of(data))


def json_of(data: Any) -> str:
    try:
        return orjson.dumps(data).decode()
    except TypeError as error:
        raise MessageRefused(f"the message cannot be published: {error}") from error


async def put(connection: Queryable, statement: str, *arguments: str) -> None:
    try:
        await connection.execute(statement, *arguments)
    except (
        asyncpg.InvalidParameterValueError,
        asyncpg.ProgramLimitExceededError,
        asyncpg.DataError,
    ) as error:
        raise MessageRefused(f"the message cannot be published: {told(error)}") from error
