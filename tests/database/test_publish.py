from __future__ import annotations

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


@pytest.mark.parametrize(
    ("channel", "type", "data", "why"),
    [
        ("", "greeting", {}, "channel"),
        ("news", "", {}, "type"),
        ("n" * 256, "greeting", {}, "255"),
        ("news", "g" * 256, {}, "255"),
        ("news", "greeting", {"text": "x" * 300_000}, "262144"),
        ("news", "greeting", {1, 2}, "JSON"),
        ("news", "greeting", {"text": "\0"}, "Unicode"),
    ],
)
async def test_what_is_no_message_is_refused_with_the_reason(
    connection: asyncpg.Connection, channel: str, type: str, data: object, why: str
) -> None:
    with pytest.raises(MessageRefused, match=why):
        await publish(connection, channel, type, data)
