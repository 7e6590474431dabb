from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import IntEnum
from typing import Any

import asyncpg
import pytest

from brain.database.publish import publish
from brain.errors import MessageRefused
from brain.message.event import Operation
from tests.database.changes import rung
from tests.database.log_reading import events_after, parsed, reading

pytestmark = pytest.mark.postgres_versions


async def test_a_message_is_logged_with_the_transaction_that_publishes_it(
    database: str, connection: asyncpg.Connection
) -> None:
    async with reading(database) as log:
        start = await log.tick()
        async with connection.transaction():
            await publish(connection, "news", "greeting", {"text": "hello", "n": [1, None]})
            assert await events_after(log, start) == []
        (event,) = await events_after(log, start)

    assert (event.channel, event.type, event.operation) == ("news", "greeting", Operation.PUBLISH)
    assert parsed(event.data) == {"text": "hello", "n": [1, None]}
    assert (event.key, event.old) == (None, None)


async def test_what_is_rolled_back_was_never_published(
    database: str, connection: asyncpg.Connection
) -> None:
    async with reading(database) as log:
        start = await log.tick()
        transaction = connection.transaction()
        await transaction.start()
        await publish(connection, "news", "greeting", {})
        await transaction.rollback()

        assert await events_after(log, start) == []


async def test_a_message_is_published_from_sql_without_data(
    database: str, connection: asyncpg.Connection
) -> None:
    async with reading(database) as log:
        start = await log.tick()
        await connection.execute("SELECT brain.publish('news', 'ping')")
        (event,) = await events_after(log, start)

    assert event.data == "{}"


async def test_publishing_notifies_a_parked_node(
    database: str, connection: asyncpg.Connection
) -> None:
    assert await rung(database, connection, "SELECT brain.publish('news', 'ping')") == [True]


@dataclass
class Point:
    x: float
    y: int


class Size(IntEnum):
    LARGE = 2**70


def deep(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (2**64, "18446744073709551616"),
        ([-(2**63) - 1, 2**63], "[-9223372036854775809, 9223372036854775808]"),
        ({"a": {"b": (Decimal("1.10"), 10**40)}}, f'{{"a": {{"b": [1.10, {10**40}]}}}}'),
        (Point(0.5, 2**65), f'{{"x": 0.5, "y": {2**65}}}'),
        (Size.LARGE, str(2**70)),
        ([True, False, None, 1e300], f"[true, false, null, 1{'0' * 300}]"),
    ],
)
async def test_a_number_is_published_with_all_of_its_digits(
    database: str, connection: asyncpg.Connection, data: object, text: str
) -> None:
    async with reading(database) as log:
        start = await log.tick()
        await publish(connection, "news", "greeting", data)
        (event,) = await events_after(log, start)
    assert event.data == text


@pytest.mark.parametrize(
    ("channel", "type", "data", "why"),
    [
        ("", "greeting", {}, "channel"),
        ("news", "", {}, "type"),
        ("n" * 256, "greeting", {}, "255"),
        ("news", "g" * 256, {}, "255"),
        ("news", "greeting", {"text": "x" * 300_000}, "262144"),
        ("news", "greeting", {1, 2}, "JSON"),
        ("news", "greeting", {"a": [float("inf")]}, "inf is not JSON"),
        ("news", "greeting", (Point(float("nan"), 0),), "nan is not JSON"),
        ("news", "greeting", {"a": Decimal("-Infinity")}, "JSON"),
        ("news", "greeting", deep(10_000), "recursion"),
        ("news", "greeting", {"text": "\0"}, "Unicode"),
    ],
)
async def test_what_is_no_message_is_refused_with_the_reason(
    connection: asyncpg.Connection, channel: str, type: str, data: object, why: str
) -> None:
    with pytest.raises(MessageRefused, match=why):
        await publish(connection, channel, type, data)
