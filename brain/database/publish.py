"""Publishes messages: rows of the log without a table."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import asyncpg
import orjson

from brain.database.connection import Queryable, first_line
from brain.errors import MessageRefused, MessageTooLarge

PUBLISH = "SELECT brain.publish($1, $2, $3::text::jsonb, $4)"


async def publish(
    connection: Queryable, channel: str, type: str, data: Any, recipient: str | None = None
) -> None:
    """
    Append a message to the log, for one user or for all subscribers of the channel.

    It is sent when the transaction commits. Raises `MessageRefused`.
    """
    await append_message(connection, PUBLISH, channel, type, json_of(data), recipient)


async def append_message(connection: Queryable, statement: str, *arguments: str | None) -> None:
    """Call one of the functions that publish. Raises `MessageRefused`."""
    try:
        await connection.execute(statement, *arguments)
    except asyncpg.ProgramLimitExceededError as error:
        raise MessageTooLarge(f"the message cannot be published: {first_line(error)}") from error
    except (asyncpg.InvalidParameterValueError, asyncpg.DataError) as error:
        raise MessageRefused(f"the message cannot be published: {first_line(error)}") from error


def json_of(data: Any) -> str:
    """Return the JSON text of `data`, in which decimals keep their digits."""
    try:
        return orjson.dumps(data, default=exact).decode()
    except TypeError as error:
        raise MessageRefused(f"the message cannot be published: {error}") from error


def exact(value: object) -> orjson.Fragment:
    if isinstance(value, Decimal) and value.is_finite():
        return orjson.Fragment(str(value))
    raise TypeError(f"{type(value).__name__} is not JSON")
