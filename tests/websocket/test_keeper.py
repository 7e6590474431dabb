"""What wakes a feed and what does not, with batches that the test hands over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime

import asyncpg
import pytest

from brain.database.connection import opened_pool
from brain.database.feeds import FeedReader
from brain.errors import ConnectionEnded, LogUnreachable
from brain.hub.feed import Follower
from brain.message.cursor import Cursor
from brain.message.event import Batch, Event, Operation
from brain.message.frames import texts_of
from brain.websocket.keeper import FeedKeeper, Kept
from tests.end_to_end.following import Questions, define

COUNT = "SELECT to_jsonb(count(*)) FROM tasks"


class Client:
    """Follows a feed of a keeper."""

    def __init__(self, keeper: FeedKeeper, name: str, argument: str | None = None) -> None:
        self._keeper = keeper
        self._told: asyncio.Queue[str | ConnectionEnded] = asyncio.Queue()
        self._follower = Follower(self._take, self._take, self._told.put_nowait)
        self._kept: Kept = keeper.follow(name, argument, self._follower)

    async def heard(self) -> str | ConnectionEnded:
        """Return the next message, or why there will be none."""
        async with asyncio.timeout(10):
            return await self._told.get()

    def leave(self) -> None:
        self._keeper.leave(self._kept, self._follower)

    def _take(self, frames: bytes) -> int:
        for text in texts_of(frames):
            self._told.put_nowait(text)
        return len(frames)


@pytest.fixture
async def keeper(database: str) -> AsyncIterator[FeedKeeper]:
    async with opened_pool(database) as pool:
        keeper = FeedKeeper(FeedReader(pool, 100_000, timeout_seconds=4), seconds_between=0.01)
        task = asyncio.create_task(keeper.keep())
        yield keeper
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def batch(channel: str, key: list[object] | None = None, *, follows: bool = True) -> Batch:
    """Return a batch of one event that says nothing."""
    event = Event(
        Cursor(1, 1, 1), datetime.now(UTC), channel, Operation.INSERT, key, {}, None, size_bytes=1
    )
    return Batch((event,), Cursor(1, 1), follows=follows)


async def test_a_feed_that_was_just_defined_is_known_before_anybody_says_so(
    keeper: FeedKeeper, connection: asyncpg.Connection
) -> None:
    assert not await keeper.knows("count", None)
    await define(connection, "count", COUNT, "tasks")

    assert await keeper.knows("count", None)
    assert not await keeper.knows("count", "1")


async def test_a_hundred_who_want_an_unknown_feed_are_two_questions_at_most(
    keeper: FeedKeeper, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await keeper.knows("queue", None)
    questions = 0
    ask = FeedReader.definitions

    async def counted(reader: FeedReader) -> object:
        nonlocal questions
        questions += 1
        return await ask(reader)

    monkeypatch.setattr(FeedReader, "definitions", counted)

    assert not any(await asyncio.gather(*(keeper.knows("count", None) for _ in range(100))))
    assert questions <= 2


async def test_a_batch_that_follows_nothing_has_every_state_looked_at_again(
    keeper: FeedKeeper, connection: asyncpg.Connection
) -> None:
    await define(connection, "count", COUNT, "tasks")
    assert await keeper.knows("count", None)
    client = Client(keeper, "count")
    assert await client.heard() == '{"type":"count_update","data":0}'

    await connection.execute("INSERT INTO tasks (id) VALUES ('a')")
    keeper.wake(batch("others", follows=False))
    assert await client.heard() == '{"type":"count_update","data":1}'
    client.leave()


async def test_only_the_channels_of_a_feed_wake_it(
    keeper: FeedKeeper, connection: asyncpg.Connection
) -> None:
    questions = Questions(connection)
    await define(connection, "counted", await questions.query(), "tasks", "more")
    await define(connection, "fence", COUNT, "others", "tasks", "more")
    assert await keeper.knows("fence", None)
    counted, fence = Client(keeper, "counted"), Client(keeper, "fence")
    await counted.heard()
    await fence.heard()
    before = await questions.count()

    for number, (channel, is_asked) in enumerate((("others", 0), ("tasks", 1), ("more", 2)), 1):
        await connection.execute("INSERT INTO tasks (id) VALUES ($1)", str(number))
        keeper.wake(batch(channel))
        assert await fence.heard() == f'{{"type":"fence_update","data":{number}}}'
        async with asyncio.timeout(10):
            while await questions.count() < before + is_asked:
                await asyncio.sleep(0.01)
        assert await questions.count() == before + is_asked
    counted.leave()
    fence.leave()


async def test_what_is_wanted_no_more_when_its_turn_comes_is_not_asked(
    keeper: FeedKeeper, connection: asyncpg.Connection
) -> None:
    questions = Questions(connection)
    await define(connection, "counted", await questions.query(), "tasks")
    await define(
        connection,
        "slow",
        "SELECT to_jsonb($1) FROM pg_sleep(length($1) / 10.0)",
        "tasks",
        takes_argument=True,
    )
    assert await keeper.knows("slow", "a")
    before = await questions.count()
    slow = [Client(keeper, "slow", argument) for argument in ("aaa", "bbb")]
    await asyncio.sleep(0)
    quick = Client(keeper, "counted")
    await asyncio.sleep(0)
    quick.leave()
    for client in slow:
        await client.heard()
        client.leave()
    last = Client(keeper, "queue")
    await last.heard()
    last.leave()

    assert await questions.count() == before


async def test_who_comes_next_is_told_no_old_state(
    keeper: FeedKeeper, connection: asyncpg.Connection
) -> None:
    """Although nothing woke the keeper."""
    await define(connection, "count", COUNT, "tasks")
    assert await keeper.knows("count", None)
    for number in range(3):
        client = Client(keeper, "count")
        assert await client.heard() == f'{{"type":"count_update","data":{number}}}'
        client.leave()
        await connection.execute("INSERT INTO tasks (id) VALUES ($1)", str(number))


async def test_a_feed_that_is_gone_ends_its_clients_and_cannot_be_followed(
    keeper: FeedKeeper, connection: asyncpg.Connection
) -> None:
    await define(connection, "count", COUNT, "tasks")
    assert await keeper.knows("count", None)
    client = Client(keeper, "count")
    await client.heard()

    await connection.execute("SELECT brain.drop_feed('count')")
    keeper.wake(batch("brain.feeds"))

    assert isinstance(await client.heard(), LogUnreachable)
    client.leave()
    with pytest.raises(LogUnreachable, match="count is gone"):
        Client(keeper, "count")
