"""Publishes messages: rows of the log without a table."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from decimal import Decimal
from enum import Enum
from typing import Any

import asyncpg
import orjson

from brain.database.connection import DATABASE_ERRORS, Queryable, first_line
from brain.errors import LogUnavailable, MessageRefused, MessageTooLarge

PUBLISH = "SELECT brain.publish($1, $2, $3::text::jsonb, $4)"
PUBLISH_AND_NAME = """
    SELECT pg_current_xact_id()::text::bigint
      FROM (SELECT brain.publish($1, $2, $3::text::jsonb, $4) OFFSET 0) p
"""


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
    with refusing():
        await connection.execute(statement, *arguments)


@contextmanager
def refusing() -> Iterator[None]:
    """Raise what the functions that publish raise as `MessageRefused`."""
    try:
        yield
    except asyncpg.ProgramLimitExceededError as error:
        raise MessageTooLarge(f"the message cannot be published: {first_line(error)}") from error
    except (asyncpg.InvalidParameterValueError, asyncpg.DataError) as error:
        raise MessageRefused(f"the message cannot be published: {first_line(error)}") from error


async def publish_for_client(
    pool: asyncpg.Pool,
    timeout_seconds: float,
    channel: str,
    type: str,
    data: str,
    recipient: str | None,
) -> int:
    """
    Append a message, of which `data` is the JSON, in a transaction of its own; return its id.

    Raises `MessageRefused` and `LogUnavailable`.
    """
    try:
        async with pool.acquire(timeout=timeout_seconds) as connection:
            with refusing():
                id: int = await connection.fetchval(
                    PUBLISH_AND_NAME, channel, type, data, recipient, timeout=timeout_seconds
                )
            return id
    except DATABASE_ERRORS as error:
        raise LogUnavailable("the message cannot be published at the moment") from error


def json_of(data: Any) -> str:
    """Return the JSON text of `data`, in which all numbers keep their digits."""
    try:
        return orjson.dumps(exact(data), default=exact_decimal).decode()
    except (TypeError, RecursionError) as error:
        raise MessageRefused(f"the message cannot be published: {error}") from error


def exact(value: Any) -> Any:
    """
    Return a value for orjson, which refuses integers beyond 64 bits and writes others as null.

    Raises `TypeError` for a number that is none in JSON.
    """
    match value:
        case bool() | str() | None:
            return value
        case Enum():
            return exact(value.value)
        case int():
            return value if -(2**63) <= value < 2**63 else orjson.Fragment(int.__repr__(value))
        case float() if not math.isfinite(value):
            raise TypeError(f"{value} is not JSON")
        case dict():
            return {name: exact(each) for name, each in value.items()}
        case list() | tuple():
            return [exact(each) for each in value]
        case _ if is_dataclass(value) and not isinstance(value, type):
            names = [each.name for each in fields(value) if not each.name.startswith("_")]
            return {name: exact(getattr(value, name)) for name in names}
        case _:
            return value


def exact_decimal(value: object) -> orjson.Fragment:
    if isinstance(value, Decimal) and value.is_finite():
        return orjson.Fragment(str(value))
    raise TypeError(f"{type(value).__name__} is not JSON")
