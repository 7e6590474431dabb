"""What a client may read by a stream, and what becomes of it when that changes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from brain.app import build_app
from tests.session.event_stream_client import Stream, stream
from tests.session.test_commands import token, with_secret
from tests.session.test_stream_session import names
from tests.session.test_topic_rights import ORDERS
from tests.transport.served import served

MAY_READ = """
    CREATE OR REPLACE FUNCTION brain.may_read(claims jsonb, channel text) RETURNS boolean
    LANGUAGE sql AS $$ SELECT channel IN ({}) $$
"""


@pytest.fixture
async def port(database: str, connection: asyncpg.Connection) -> AsyncIterator[int]:
    await connection.execute(ORDERS)
    async with served(build_app(database, with_secret())) as (port, _):
        yield port


def bearer(user: str, **claims: Any) -> dict[str, str]:
    return {"authorization": f"Bearer {token(user, **claims)}"}


async def key(client: Stream) -> Any:
    frame = await client.frame()
    assert frame is not None
    return frame["key"]


async def test_a_stream_has_the_rows_and_messages_of_its_user(
    port: int, connection: asyncpg.Connection
) -> None:
    await connection.execute("INSERT INTO orders VALUES (1, 'ann', 10), (2, 'ben', 20)")
    async with stream(port, channel="orders", snapshot="", headers=bearer("ann")) as client:
        _, subscribed, page, *_ = await client.until("live")
        assert subscribed["restricted"] is True
        assert [row["key"] for row in page["rows"]] == [[1]]
        await connection.execute("INSERT INTO orders VALUES (3, 'ben', 30), (4, 'ann', 40)")
        assert await key(client) == [4]
        await connection.execute("SELECT brain.publish('orders', 'a', '1', 'ben')")
        await connection.execute("SELECT brain.publish('orders', 'b', '1', 'ann')")
        frame = await client.frame()
        assert frame is not None and (frame["type"], frame["private"]) == ("b", True)


async def test_a_stream_of_what_a_client_may_not_read_is_refused(port: int) -> None:
    for headers, status in (
        ({}, 401),
        ({"authorization": "Bearer nonsense"}, 401),
        (bearer("ann", channels=["other"]), 403),
    ):
        async with stream(port, channel="orders", headers=headers) as client:
            assert client.status == status
    # Of one row, the right to that row is enough.
    row = bearer("ann", channels=["orders:1"])
    async with stream(port, channel="orders", key=[1], headers=row) as client:
        assert client.status == 200


async def test_a_client_that_loses_the_right_gets_the_reason_and_the_end(
    port: int, connection: asyncpg.Connection
) -> None:
    await connection.execute(MAY_READ.format("'orders'"))
    async with stream(port, channel="orders", headers=bearer("ann")) as client:
        await client.until("live")
        await connection.execute(MAY_READ.format("'other'"))
        unsubscribed, closed = await client.frames(2)
        assert (unsubscribed["type"], unsubscribed["code"]) == ("unsubscribed", "not_allowed")
        assert (closed["type"], closed["code"]) == ("closed", 4504)
        assert await client.frame() is None
        assert client.retry is not None and client.retry >= 60_000
    async with stream(port, channel="orders", headers=bearer("ann")) as client:
        assert client.status == 403


async def test_a_client_whose_rules_change_gets_the_rows_that_it_may_see_now(
    port: int, connection: asyncpg.Connection
) -> None:
    await connection.execute("INSERT INTO orders VALUES (1, 'ann', 10), (2, 'ben', 20)")
    async with stream(port, channel="orders", snapshot="", headers=bearer("ann")) as client:
        _, former, *_ = await client.until("live")
        before = client.last_event_id
        await connection.execute("SELECT brain.restrict('orders', '{}')")
        frames = await client.until("snapshot")
        # Until it has all rows it would come back with the same id.
        assert client.last_event_id == before
        frames += await client.until("live")
        (subscribed,) = [frame for frame in frames if frame.get("type") == "subscribed"]
        assert subscribed["replaces"] == former["sub"]
        assert "restricted" not in subscribed
        assert names(frames)[-4:] == ["reset", "snapshot", "snapshot-end", "live"]
        assert sorted(row["key"] for row in frames[-3]["rows"]) == [[1], [2]]
        await connection.execute("INSERT INTO orders VALUES (3, 'ben', 30)")
        assert await key(client) == [3]
