"""Messages to one user."""

from __future__ import annotations

import asyncpg
import pytest

from brain.database.log import PAGE_EVENTS
from brain.database.publish import publish
from brain.errors import MessageRefused
from brain.publishing import messages as client
from tests.database.changes import logged_events, rung
from tests.database.log_reading import batches_after, events_after, parsed, reading
from tests.tasks import insert

pytestmark = pytest.mark.postgres_versions
TO_ANN = "SELECT brain.publish('news', 'hello', '{}', 'ann')"


async def test_a_message_to_one_user_is_logged_with_that_user(
    database: str, connection: asyncpg.Connection
) -> None:
    async with reading(database) as log:
        start = await log.tick()
        await publish(connection, "news", "hello", {"n": 1}, "ann")
        await client.publish("news", "hello", {"n": 2}, recipient="bob", connection=connection)
        await publish(connection, "news", "hello", {"n": 3})
        await insert(connection, "a")
        events = await events_after(log, start)

    assert [event.recipient for event in events] == ["ann", "bob", None, None]
    assert [parsed(event.data)["n"] for event in events[:3]] == [1, 2, 3]


async def test_the_recipient_is_read_in_the_middle_of_a_tick_too(
    database: str, connection: asyncpg.Connection
) -> None:
    async with reading(database) as log:
        start = await log.tick()
        await connection.execute(
            "SELECT brain.publish('news', 'hello', '1', (n % 2)::text)"
            "  FROM generate_series(1, $1) n",
            PAGE_EVENTS + 10,
        )
        first, second = await batches_after(log, start)

    assert [event.recipient for event in first] == ["1", "0"] * (PAGE_EVENTS // 2)
    assert [event.recipient for event in second] == ["1", "0"] * 5


async def test_a_message_to_one_user_notifies_a_parked_node(
    database: str, connection: asyncpg.Connection
) -> None:
    assert await rung(database, connection, TO_ANN) == [True]


async def test_a_message_without_a_recipient_is_for_all(
    database: str, connection: asyncpg.Connection
) -> None:
    (event,) = await logged_events(
        database, connection, "SELECT brain.publish('news', 'hello', recipient => NULL)"
    )

    assert (event.recipient, event.data) == (None, "{}")


@pytest.mark.parametrize(
    ("channel", "recipient", "reason"),
    [
        ("news", "", "1 to 255"),
        ("news", "x" * 256, "1 to 255"),
        ("brain.revocations", None, "own"),
        ("brain.", "ann", "own"),
    ],
    ids=["empty", "too long", "a channel of Brain's", "a future channel of Brain's"],
)
async def test_an_invalid_recipient_or_channel_is_refused_with_the_reason(
    connection: asyncpg.Connection, channel: str, recipient: str | None, reason: str
) -> None:
    with pytest.raises(MessageRefused, match=reason):
        await publish(connection, channel, "hello", {}, recipient)


async def test_a_recipient_of_255_characters_is_valid(
    database: str, connection: asyncpg.Connection
) -> None:
    async with reading(database) as log:
        start = await log.tick()
        await publish(connection, "brains", "hello", {}, "é" * 255)
        (event,) = await events_after(log, start)

    assert event.recipient == "é" * 255
