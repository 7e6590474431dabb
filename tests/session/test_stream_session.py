"""Streams of `/sse` on a real server and database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from brain.app import create_app
from brain.message.cursor import Cursor
from brain.settings import Settings
from tests.session.event_stream_client import Stream, stream
from tests.session.test_topic_session import ORDERS, shown
from tests.transport.served import served


@pytest.fixture
async def port(
    database: str, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[int]:
    monkeypatch.setattr("brain.database.filter_binder.FilterBinder.poll_seconds", 0.05)
    await connection.execute(ORDERS)
    async with served(create_app(database, Settings())) as (port, _):
        yield port


def names(frames: list[dict[str, Any]]) -> list[str]:
    return [str(frame.get("op", frame.get("type"))) for frame in frames]


def cursor(stream: Stream) -> Cursor:
    """Return the cursor with which a browser would come back."""
    return Cursor.parse(stream.last_event_id)


async def test_a_stream_is_one_subscription_of_brain_v1(
    port: int, connection: asyncpg.Connection
) -> None:
    async with stream(port, channel="orders", where={"status": "new"}) as client:
        hello, subscribed, live = await client.frames(3)
        assert (hello["type"], hello["protocol"]) == ("hello", "brain.v1")
        assert subscribed["type"] == "subscribed"
        assert subscribed["where"] == {"status": {"eq": "new"}}
        assert (live["op"], live["sub"]) == ("live", subscribed["sub"])

        await connection.execute("INSERT INTO orders VALUES (1, 'old', 1), (2, 'new', 1.50)")
        await connection.execute("UPDATE orders SET status = 'paid'")
        frames = await client.frames(2)
    new = {"id": 2, "status": "new", "total": 1.5}
    assert [shown(frame) for frame in frames] == [
        {"op": "insert", "key": [2], "row": new, "last": True},
        {"op": "leave", "key": [2], "last": True},
    ]


async def test_the_id_of_each_event_is_its_cursor_and_a_client_goes_on_after_it(
    port: int, connection: asyncpg.Connection
) -> None:
    async with stream(port, channel="orders") as client:
        await client.until("live")
        for id in range(1, 4):
            await connection.execute("INSERT INTO orders VALUES ($1, 'new', 1)", id)
            frame = await client.frame()
            assert frame is not None and client.last_event_id == frame["cursor"]
            if id == 1:
                first = client.last_event_id
    async with stream(port, channel="orders", last_event_id=first) as client:
        frames = await client.until("live")
        assert names(frames) == ["hello", "subscribed", "insert", "insert", "live"]
        assert [frame["key"] for frame in frames[2:4]] == [[2], [3]]
        assert client.last_event_id == frames[-1]["cursor"]


async def test_the_last_event_id_precedes_the_cursor_in_the_address(
    port: int, connection: asyncpg.Connection
) -> None:
    async with stream(port, channel="orders") as client:
        await client.until("live")
        start = client.last_event_id
        await connection.execute("INSERT INTO orders VALUES (1, 'new', 1)")
        await client.frame()
        end = client.last_event_id
    async with stream(port, channel="orders", after=start) as client:
        assert names(await client.until("live")) == ["hello", "subscribed", "insert", "live"]
    async with stream(port, channel="orders", after=start, last_event_id=end) as client:
        assert names(await client.until("live")) == ["hello", "subscribed", "live"]


async def test_a_stream_with_a_filter_that_cannot_be_evaluated_is_refused_with_the_reason(
    port: int,
) -> None:
    for where, reason in (
        ({"colour": 1}, "orders has no column colour; it has id, status, total"),
        ({"total": {"gt": "much"}}, "is no value of total"),
        ({"total": {"above": 1}}, "there is no comparison above"),
    ):
        async with stream(port, channel="orders", where=where) as client:
            assert client.status == 400
            assert reason in await client.body()


async def test_a_stream_gets_another_number_or_ends_if_the_columns_of_its_filter_change(
    port: int, connection: asyncpg.Connection
) -> None:
    await connection.execute("INSERT INTO orders VALUES (1, 'new', 5)")
    where = {"status": {"in": ["new"]}, "total": {"gt": 2}}
    async with stream(port, channel="orders", where=where, snapshot="") as client:
        first = (await client.until("live"))[1]
        await connection.execute("ALTER TABLE orders ALTER status TYPE char(4)")
        frames = await client.until("live")
        assert names(frames) == ["subscribed", "reset", "snapshot", "snapshot-end", "live"]
        assert frames[0]["replaces"] == first["sub"]
        assert frames[1]["sub"] == frames[0]["sub"]

        await connection.execute("ALTER TABLE orders RENAME total TO price")
        ended, error = await client.frames(2)
        assert (ended["type"], ended["code"]) == ("unsubscribed", "invalid_filter")
        assert "total was dropped or renamed" in error["message"]
        closed = await client.frame()
        assert closed is not None
        assert (closed["code"], closed["reason"]) == (4504, error["message"])
        assert await client.frame() is None


async def test_an_event_that_does_not_say_whether_a_row_matches_is_a_reset_of_a_stream(
    port: int, connection: asyncpg.Connection
) -> None:
    await connection.execute("INSERT INTO orders VALUES (1, 'new', 5), (2, 'old', 6)")
    async with stream(
        port, channel="orders", where={"status": {"gt": "m"}}, snapshot="true"
    ) as client:
        await client.until("live")
        before = client.last_event_id
        await connection.execute("UPDATE orders SET status = repeat('x', 3000000) WHERE id = 1")
        frame = await client.frame()
        assert frame is not None and frame["op"] == "reset"
        # Who is cut now has to get the reset again.
        assert client.last_event_id == before
        assert names(await client.until("live")) == ["snapshot", "snapshot-end", "live"]
