"""Filters on columns that a channel does not have, or of another type, are refused by name."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import asyncpg
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.end_to_end.brain import RunningBrain, message

ORDERS = """
    CREATE TYPE mood AS ENUM ('good');
    CREATE DOMAIN amount AS numeric(10, 2);
    CREATE TABLE orders (id bigint PRIMARY KEY, status text, total amount, is_open boolean,
                         mood mood, placed timestamptz, tags text[], details jsonb, secret text);
    SELECT brain.watch('orders', 'orders', '{id,status,total,is_open,mood,placed,tags,details}');
"""
COLUMNS = "id, status, total, is_open, mood, placed, tags, details"


@pytest.fixture
async def application(shared_database: str) -> Any:
    connection = await asyncpg.connect(shared_database)
    await connection.execute(ORDERS)
    yield connection
    await connection.execute("SELECT brain.unwatch('orders'); DROP TABLE orders")
    await connection.execute("DROP TYPE mood; DROP DOMAIN amount")
    await connection.close()


def path(where: Any, channel: str = "orders") -> str:
    return f"/ws?channel={channel}&where={quote(json.dumps(where))}"


async def refused(brain: RunningBrain, where: Any, channel: str = "orders") -> str:
    """Return the body of the 400 in place of the handshake."""
    with pytest.raises(InvalidStatus) as error:
        async with connect(f"ws://localhost:{brain.port}{path(where, channel)}", proxy=None):
            pass
    assert error.value.response.status_code == 400
    return error.value.response.body.decode()


async def accepted(brain: RunningBrain, where: Any, channel: str = "orders") -> bool:
    async with brain.client(path(where, channel)):
        return True


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        ({"colour": "red"}, f"orders has no column colour; it has {COLUMNS}"),
        ({"secret": "x"}, f"orders has no column secret; it has {COLUMNS}"),
        ({"total": "12.50"}, "where: total is a number"),
        ({"status": 1}, "where: status is a string"),
        ({"is_open": 1}, "where: is_open is a boolean"),
        ({"mood": True}, "where: mood is a string"),
        ({"placed": 2026}, "where: placed is a string"),
    ],
)
async def test_the_filter_of_a_url_that_can_never_match_is_refused_before_the_handshake(
    shared_brain: RunningBrain, application: asyncpg.Connection, where: Any, reason: str
) -> None:
    assert reason in await refused(shared_brain, where)
    assert reason in await refused(shared_brain, where, "orders:1")


@pytest.mark.parametrize("channel", ["orders", "news"])
@pytest.mark.parametrize(
    ("where", "reason"),
    [
        ({"\ud800": 1}, "where: the name of a column has half of a surrogate pair"),
        ({"status": "\udfff"}, "where: the value of status has half of a surrogate pair"),
        ({"x" * 1001: 1}, "where: the name of a column has more than 1000 characters"),
        ({"x" * 900: [1]}, "where: a value must be a string, a number, a boolean or null"),
    ],
)
async def test_a_filter_that_no_answer_could_repeat_is_refused_with_a_short_reason(
    shared_brain: RunningBrain,
    application: asyncpg.Connection,
    channel: str,
    where: Any,
    reason: str,
) -> None:
    assert await refused(shared_brain, where, channel) == f"{reason}\n"


async def test_a_long_name_is_cut_in_the_reason(
    shared_brain: RunningBrain, application: asyncpg.Connection
) -> None:
    reason = await refused(shared_brain, {"x" * 1000: 1})
    assert reason == f"orders has no column {'x' * 50}; it has {COLUMNS}\n"


@pytest.mark.parametrize("address", ["/ws?channel=orders&channel=a%00b", "/ws/channel/a%00b"])
async def test_a_name_that_no_channel_can_have_is_refused(
    shared_brain: RunningBrain, address: str
) -> None:
    with pytest.raises(InvalidStatus) as error:
        async with connect(f"ws://localhost:{shared_brain.port}{address}", proxy=None):
            pass
    assert error.value.response.status_code == 400
    assert error.value.response.body == b"no channel has a zero in its name\n"


async def test_a_filter_that_a_row_may_match_is_accepted(
    shared_brain: RunningBrain, application: asyncpg.Connection
) -> None:
    for where in ({"total": 12.5, "status": None}, {"tags": "a"}, {"details": 1}, {"mood": "bad"}):
        assert await accepted(shared_brain, where)


async def test_a_channel_of_published_messages_takes_any_filter(
    shared_brain: RunningBrain, application: asyncpg.Connection
) -> None:
    async with shared_brain.client(path({"colour": "red"}, "news")) as client:
        for colour in ("blue", "red"):
            data = json.dumps({"colour": colour})
            await application.execute("SELECT brain.publish('news', 'paint', $1)", data)
        assert (await message(client))["data"]["colour"] == "red"


async def test_a_frame_with_such_a_filter_is_answered_by_an_error(
    shared_brain: RunningBrain, application: asyncpg.Connection
) -> None:
    async with shared_brain.client("/ws/connect") as client:
        frame = {"type": "subscribe", "channel": "orders", "where": {"colour": "red"}}
        await client.send(json.dumps(frame))
        answer = await message(client)
        assert answer["type"] == "error"
        assert f"orders has no column colour; it has {COLUMNS}" in json.dumps(answer)

        await client.send(json.dumps(frame | {"where": {"total": "1"}}))
        assert "where: total is a number" in json.dumps(await message(client))

        await client.send(json.dumps(frame | {"where": {"status": "open"}}))
        assert (await message(client))["type"] == "subscribed"


async def test_filters_follow_the_watch(
    shared_brain: RunningBrain, application: asyncpg.Connection
) -> None:
    assert "no column secret" in await refused(shared_brain, {"secret": "x"})

    await application.execute("SELECT brain.watch('orders', 'orders', '{id,secret}')")
    assert await accepted(shared_brain, {"secret": "x"})

    await application.execute("ALTER TABLE orders ALTER secret TYPE int USING 1")
    assert await accepted(shared_brain, {"secret": 1})

    await application.execute("SELECT brain.watch('orders', 'moved', '{id}')")
    assert "moved has no column secret; it has id" in await refused(
        shared_brain, {"secret": 1}, "moved"
    )


async def test_the_columns_of_a_channel_are_not_named_to_a_client_that_may_not_read_it(
    shared_brain: RunningBrain, application: asyncpg.Connection
) -> None:
    async with shared_brain.client(path({"colour": "red"}, "brain.watches")):
        pass
