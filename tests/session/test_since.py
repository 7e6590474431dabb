"""Subscriptions that begin with what happened in the last so many seconds."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from brain.app import create_app
from brain.database.log import Log
from brain.settings import Settings
from tests.session.event_stream_client import Stream, stream
from tests.session.replica import Replica
from tests.session.test_topic_pages import ORDERS, change, expected, last_transaction
from tests.session.v1_client import V1Client, v1_client
from tests.transport.served import served

pytestmark = pytest.mark.postgres_versions

ANY_DATABASE_TIME = timedelta(seconds=60)
"""By which the clocks of this process and of the server may differ, and longer than any test."""


@pytest.fixture
async def port(database: str, connection: asyncpg.Connection) -> AsyncIterator[int]:
    await connection.execute(ORDERS)
    settings = Settings(messages_per_second=1000)
    async with served(create_app(database, settings)) as (port, _):
        yield port


async def insert(connection: asyncpg.Connection, *ids: int) -> None:
    for id in ids:
        await connection.execute("INSERT INTO orders VALUES ($1::int, 'open', $1::int)", id)


async def an_hour_passes(connection: asyncpg.Connection) -> None:
    """Have all that was logged so far lie an hour back."""
    await Log(connection, 5).tick()
    await connection.execute("UPDATE brain.ticks SET at = at - interval '1 hour'")


def keys(frames: list[dict[str, Any]]) -> list[int]:
    return [frame["key"][0] for frame in frames if "key" in frame]


async def until(client: V1Client, op: str) -> list[dict[str, Any]]:
    """Return the frames up to the first with this `op`."""
    frames = [await client.receive()]
    while frames[-1].get("op") != op:
        frames.append(await client.receive())
    return frames


async def changes(client: V1Client | Stream, count: int) -> list[int]:
    """Return the keys of the next changes; `live` may come between."""
    found: list[int] = []
    while len(found) < count:
        frame = await (client.receive() if isinstance(client, V1Client) else client.frame())
        found += keys([frame or {}])
    return found


def moment(answer: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(answer["since"])


async def test_since_begins_with_what_happened_in_the_last_seconds(
    port: int, connection: asyncpg.Connection
) -> None:
    await insert(connection, 1, 2)
    await an_hour_passes(connection)
    await insert(connection, 3, 4)

    async with v1_client(port) as client:
        answer = await client.subscribe("orders", since=600)
        asked = datetime.now(UTC) - timedelta(seconds=600)
        assert abs(moment(answer) - asked) < ANY_DATABASE_TIME
        assert await changes(client, 2) == [3, 4]

        await insert(connection, 5)
        assert await changes(client, 1) == [5]


async def test_from_subscribed_on_since_resumes_like_after(
    port: int, connection: asyncpg.Connection
) -> None:
    await insert(connection, 1)
    await an_hour_passes(connection)
    await insert(connection, 2, 3)

    async with v1_client(port) as client:
        answer = await client.subscribe("orders", since=0.5 + 600)
        first = await client.receive()
        while "key" not in first:
            first = await client.receive()
    assert first["key"] == [2]

    async with v1_client(port) as client:
        await client.subscribe("orders", after=answer["cursor"])
        assert await changes(client, 2) == [2, 3]
    async with v1_client(port) as client:
        await client.subscribe("orders", after=first["cursor"])
        assert await changes(client, 1) == [3]


@pytest.mark.parametrize("seconds", [7200, 1e12, 1e300])
async def test_a_log_that_does_not_go_back_so_far_is_sent_whole_and_says_since_when(
    port: int, connection: asyncpg.Connection, seconds: float
) -> None:
    await insert(connection, 1)
    await an_hour_passes(connection)
    await insert(connection, 2)
    oldest = await connection.fetchval("SELECT min(at) FROM brain.ticks")

    async with v1_client(port) as client:
        answer = await client.subscribe("orders", since=seconds)
        assert abs(moment(answer) - oldest) < timedelta(milliseconds=1)
        assert await changes(client, 2) == [1, 2]


@pytest.mark.parametrize("snapshot", [True, "exact"])
async def test_with_a_snapshot_the_last_changes_come_then_the_rows_then_what_happens(
    port: int, connection: asyncpg.Connection, snapshot: bool | str
) -> None:
    await insert(connection, 1, 2)
    await an_hour_passes(connection)
    await insert(connection, 3, 4)
    await connection.execute("DELETE FROM orders WHERE id IN (1, 4)")

    async with v1_client(port) as client:
        answer = await client.subscribe("orders", since=600, snapshot=snapshot)
        assert "cursor" not in answer
        assert abs(moment(answer) - datetime.now(UTC)) > timedelta(seconds=600) - ANY_DATABASE_TIME
        frames = await until(client, "live")
        *changes, page, end, _ = frames
        assert [(one["op"], one["key"][0]) for one in changes] == [
            ("insert", 3),
            ("insert", 4),
            ("delete", 1),
            ("delete", 4),
        ]
        assert not any("cursor" in one for one in changes)
        assert [one["key"] for one in page["rows"]] == [[2], [3]]
        assert end["op"] == "snapshot-end"

        await insert(connection, 5)
        assert (await client.receive())["key"] == [5]


@pytest.mark.parametrize("seed", range(3))
async def test_what_a_client_has_after_the_snapshot_is_the_table_while_it_changes(
    port: int, connection: asyncpg.Connection, database: str, seed: int
) -> None:
    chance = random.Random(seed)
    await insert(connection, *range(20))
    await an_hour_passes(connection)
    writer = await asyncpg.connect(database)
    writing = asyncio.create_task(write(writer, chance))
    try:
        async with v1_client(port) as client:
            while not await connection.fetchval("SELECT count(*) > 50 FROM brain.events"):
                await asyncio.sleep(0.01)
            answer = await client.subscribe("orders", since=600, snapshot=True, limit=7)
            replica = Replica(answer["sub"])
            await replica.until_live(client)
            writing.cancel()
            with suppress(asyncio.CancelledError):
                await writing
            await replica.until_quiet(client, await last_transaction(connection))
            assert replica.rows == await expected(connection)
            assert replica.ops.index("snapshot") > 0
    finally:
        writing.cancel()
        await writer.close()


async def write(writer: asyncpg.Connection, chance: random.Random) -> None:
    while True:
        await change(writer, chance)


@pytest.mark.one_version
@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"since": 0}, "since: Input should be greater than 0"),
        ({"since": -1.5}, "since: Input should be greater than 0"),
        ({"since": "10m"}, "since: Input should be a valid number"),
        ({"since": True}, "since: Input should be a valid number"),
        ({"since": float("inf")}, "since: Input should be a finite number"),
        ({"since": float("nan")}, "since: Input should be"),
        ({"since": 10, "after": "1.2.3"}, "since: with after, the place to begin at is given"),
    ],
)
async def test_a_since_that_is_no_time_or_comes_with_after_is_malformed(
    port: int, options: dict[str, Any], problem: str
) -> None:
    async with v1_client(port) as client:
        answer = await client.ask("subscribe", channel="orders", **options)
        assert (answer["type"], answer["code"]) == ("error", "malformed")
        assert answer["message"].startswith(problem)


async def test_a_stream_takes_since_until_it_has_an_event_id(
    port: int, connection: asyncpg.Connection
) -> None:
    await insert(connection, 1)
    await an_hour_passes(connection)
    await insert(connection, 2, 3)

    async with stream(port, channel="orders", since=600) as client:
        _, subscribed = await client.frames(2)
        assert moment(subscribed) < datetime.now(UTC)
        assert await changes(client, 1) == [2]
    async with stream(port, channel="orders", since=600, last_event_id=client.last_event_id) as it:
        _, subscribed = await it.frames(2)
        assert "since" not in subscribed
        assert await changes(it, 1) == [3]


async def test_a_stream_with_a_snapshot_has_the_last_changes_without_an_id_before_the_rows(
    port: int, connection: asyncpg.Connection
) -> None:
    await insert(connection, 1)
    await an_hour_passes(connection)
    await insert(connection, 2)

    async with stream(port, channel="orders", since=600, snapshot="true") as client:
        _, subscribed, insertion, page = await client.frames(4)
        assert "cursor" not in subscribed
        assert (insertion["op"], insertion["key"]) == ("insert", [2])
        assert client.last_event_id == ""
        assert [row["key"] for row in page["rows"]] == [[1], [2]]
        await client.until("live")


@pytest.mark.one_version
async def test_a_stream_with_since_and_after_is_refused(port: int) -> None:
    async with stream(port, channel="orders", since=600, after="1.2.3") as client:
        assert client.status == 400
        assert "since: with after" in await client.body()
