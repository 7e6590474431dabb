"""When a feed is refreshed, with batches that the test delivers."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime

import asyncpg
import pytest

from brain.database.connection import opened_pool
from brain.errors import ConnectionEnded, LogUnavailable
from brain.feeds.fanout import FeedSubscriber
from brain.feeds.reader import FeedReader
from brain.feeds.refresher import FeedRefresher, LiveFeed
from brain.message.cursor import Cursor
from brain.message.event import Batch, Event, Operation
from brain.transport.websocket_frames import WEBSOCKET_FRAMING, texts_of
from tests.end_to_end.following import Questions, define
from tests.message.rows import optional

COUNT = "SELECT to_jsonb(count(*)) FROM tasks"


class Client:
    """A subscriber of a feed and its transport."""

    def __init__(self, refresher: FeedRefresher, name: str, argument: str | None = None) -> None:
        self._refresher = refresher
        self._received: asyncio.Queue[str | ConnectionEnded] = asyncio.Queue()
        self._subscriber = FeedSubscriber(self, WEBSOCKET_FRAMING, self._received.put_nowait)
        self._live: LiveFeed = refresher.subscribe(name, argument, self._subscriber)

    async def received(self) -> str | ConnectionEnded:
        """Return the next message, or the error that ended the subscription."""
        async with asyncio.timeout(10):
            return await self._received.get()

    def leave(self) -> None:
        self._refresher.unsubscribe(self._live, self._subscriber)

    def send_now(self, frames: bytes) -> int:
        for text in texts_of(frames):
            self._received.put_nowait(text)
        return len(frames)

    write = send_now


@pytest.fixture
async def refresher(database: str) -> AsyncIterator[FeedRefresher]:
    async with opened_pool(database) as pool:
        refresher = FeedRefresher(
            FeedReader(pool, 100_000, timeout_seconds=4), interval_seconds=0.01
        )
        task = asyncio.create_task(refresher.run())
        yield refresher
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def batch(channel: str, key: list[object] | None = None, *, follows: bool = True) -> Batch:
    """Return a batch of one event without data."""
    event = Event(
        *Cursor(1, 1, 1),
        datetime.now(UTC),
        channel,
        Operation.INSERT,
        optional(key),
        "{}",
        None,
        size_bytes=1,
    )
    return Batch((event,), Cursor(1, 1), follows=follows)


async def test_a_feed_that_was_just_defined_is_known_before_its_event_arrives(
    refresher: FeedRefresher, connection: asyncpg.Connection
) -> None:
    assert not await refresher.address("count", None)
    await define(connection, "count", COUNT, "tasks")

    assert await refresher.address("count", None)
    assert not await refresher.address("count", "1")


async def test_a_hundred_clients_of_an_unknown_feed_are_two_reads_at_most(
    refresher: FeedRefresher, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await refresher.address("queue", None)
    reads = 0
    read = FeedReader.definitions

    async def counted(reader: FeedReader) -> object:
        nonlocal reads
        reads += 1
        return await read(reader)

    monkeypatch.setattr(FeedReader, "definitions", counted)

    assert not any(await asyncio.gather(*(refresher.address("count", None) for _ in range(100))))
    assert reads <= 2


async def test_a_batch_that_does_not_follow_refreshes_every_state(
    refresher: FeedRefresher, connection: asyncpg.Connection
) -> None:
    await define(connection, "count", COUNT, "tasks")
    assert await refresher.address("count", None)
    client = Client(refresher, "count")
    assert await client.received() == '{"type":"count_update","data":0}'

    await connection.execute("INSERT INTO tasks (id) VALUES ('a')")
    refresher.deliver(batch("others", follows=False))
    assert await client.received() == '{"type":"count_update","data":1}'
    client.leave()


async def test_a_feed_is_refreshed_by_events_on_its_channels_alone(
    refresher: FeedRefresher, connection: asyncpg.Connection
) -> None:
    questions = Questions(connection)
    await define(connection, "counted", await questions.query(), "tasks", "more")
    await define(connection, "fence", COUNT, "others", "tasks", "more")
    assert await refresher.address("fence", None)
    counted, fence = Client(refresher, "counted"), Client(refresher, "fence")
    await counted.received()
    await fence.received()
    before = await questions.count()

    for number, (channel, is_queried) in enumerate((("others", 0), ("tasks", 1), ("more", 2)), 1):
        await connection.execute("INSERT INTO tasks (id) VALUES ($1)", str(number))
        refresher.deliver(batch(channel))
        assert await fence.received() == f'{{"type":"fence_update","data":{number}}}'
        async with asyncio.timeout(10):
            while await questions.count() < before + is_queried:
                await asyncio.sleep(0.01)
        assert await questions.count() == before + is_queried
    counted.leave()
    fence.leave()


async def test_a_feed_without_subscribers_when_its_turn_comes_is_not_queried(
    refresher: FeedRefresher, connection: asyncpg.Connection
) -> None:
    questions = Questions(connection)
    await define(connection, "counted", await questions.query(), "tasks")
    assert await refresher.address("counted", None)
    before = await questions.count()
    async with refresher._reader._lanes._fast_place(frozenset(), "counted", math.inf):
        client = Client(refresher, "counted")
        await asyncio.sleep(0)
        client.leave()
    last = Client(refresher, "queue")
    await last.received()
    last.leave()

    assert await questions.count() == before


async def test_a_later_subscriber_is_sent_no_old_state(
    refresher: FeedRefresher, connection: asyncpg.Connection
) -> None:
    """Even if no batch has announced the change."""
    await define(connection, "count", COUNT, "tasks")
    assert await refresher.address("count", None)
    for number in range(3):
        client = Client(refresher, "count")
        assert await client.received() == f'{{"type":"count_update","data":{number}}}'
        client.leave()
        await connection.execute("INSERT INTO tasks (id) VALUES ($1)", str(number))


async def test_a_feed_that_is_gone_ends_its_clients_and_takes_no_others(
    refresher: FeedRefresher, connection: asyncpg.Connection
) -> None:
    await define(connection, "count", COUNT, "tasks")
    assert await refresher.address("count", None)
    client = Client(refresher, "count")
    await client.received()

    await connection.execute("SELECT brain.drop_feed('count')")
    refresher.deliver(batch("brain.feeds"))

    assert isinstance(await client.received(), LogUnavailable)
    client.leave()
    with pytest.raises(LogUnavailable, match="count is gone"):
        Client(refresher, "count")
