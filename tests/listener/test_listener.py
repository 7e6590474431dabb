from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import asyncpg
import pytest

from brain.listener.listener import Listener
from brain.message.event import Batch
from brain.settings import Settings
from tests.proxy import proxy_to
from tests.tasks import insert

PATIENCE_SECONDS = 20.0

# Far beyond the patience: a test that passes by the poll alone does not pass.
RARELY = Settings(idle_poll_seconds=60)


class Heard:
    """What a listener has told so far."""

    def __init__(self, listener: Listener) -> None:
        self.listener = listener
        self.past: Batch | None = None
        self._batches: asyncio.Queue[Batch] = asyncio.Queue()

    async def relay(self) -> None:
        async for batch in self.listener.batches():
            if batch.ticks:
                self.past = batch
            else:
                self._batches.put_nowait(batch)

    async def batch(self) -> Batch:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self._batches.get()

    async def keys(self, count: int) -> list[object]:
        """Return the keys of the next `count` events."""
        keys: list[object] = []
        while len(keys) < count:
            keys += keys_of(await self.batch())
        return keys

    @property
    def is_empty(self) -> bool:
        return self._batches.empty()


def keys_of(batch: Batch) -> list[object]:
    return [event.key and event.key[0] for event in batch.events]


@asynccontextmanager
async def listening(url: str, settings: Settings = RARELY) -> AsyncIterator[Heard]:
    """Run a listener until the context ends; it is live when the context begins."""
    heard = Heard(Listener(url, settings))
    task = asyncio.create_task(heard.relay())
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await heard.listener.live()
        yield heard
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def reconnected(listener: Listener, times: int) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while listener.statistics().reconnections < times:
            await asyncio.sleep(0.01)


async def is_parked(connection: asyncpg.Connection) -> bool:
    """Whether a node sleeps on the database of `connection`."""
    return bool(
        await connection.fetchval(
            """
            SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND classid = 5221
                              AND objid = 2 AND mode = 'ShareLock'
                              AND database = (SELECT oid FROM pg_database
                                               WHERE datname = current_database()))
            """
        )
    )


async def parked(connection: asyncpg.Connection) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await is_parked(connection):
            await asyncio.sleep(0.01)


async def test_a_change_is_told_when_it_is_committed(
    database: str, connection: asyncpg.Connection
) -> None:
    async with listening(database) as heard:
        await parked(connection)
        await insert(connection, "a")

        assert await heard.keys(1) == ["a"]


async def test_what_was_committed_before_it_began_is_not_told(
    database: str, connection: asyncpg.Connection
) -> None:
    await insert(connection, "before")
    async with listening(database) as heard:
        await insert(connection, "after")

        assert await heard.keys(1) == ["after"]


async def test_the_recent_past_comes_first_and_in_one_piece(
    database: str, connection: asyncpg.Connection
) -> None:
    async with listening(database) as heard:
        for id in ("a", "b"):
            await insert(connection, id)
            await heard.keys(1)
    async with listening(database) as later:
        assert later.past is not None
        assert heard.past is not None
        assert keys_of(later.past) == ["a", "b"]
        assert heard.past.cursor in later.past.ticks
        assert {event.cursor.tick for event in later.past.events} < {
            cursor.tick for cursor in later.past.ticks
        }
        assert later.past.cursor == later.past.ticks[-1] == later.listener.statistics().cursor


async def test_what_lies_further_back_than_the_ring_is_left_to_the_log(
    database: str, connection: asyncpg.Connection
) -> None:
    async with listening(database) as heard:
        await insert(connection, "a")
        await heard.keys(1)
        await asyncio.sleep(0.3)
        await insert(connection, "b")
        await heard.keys(1)
    async with listening(database, Settings(idle_poll_seconds=60, ring_seconds=0.25)) as later:
        assert later.past is not None
        assert keys_of(later.past) in (["b"], [])


async def test_of_very_much_only_the_latest_is_read_at_the_start(
    database: str, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brain.listener.listener.MOST_RECENT", 4)
    async with listening(database) as heard:
        for id in "abcdefgh":
            await insert(connection, id)
            await heard.keys(1)
    async with listening(database) as later:
        assert later.past is not None
        assert keys_of(later.past) == list("defgh")

    await connection.execute("INSERT INTO tasks SELECT generate_series(1, 9)")
    async with listening(database) as one_transaction:
        assert one_transaction.past is None
        await insert(connection, "z")
        assert (await one_transaction.keys(1)) == ["z"]


async def test_a_writer_that_looked_before_the_node_parked_is_heard_without_a_bell(
    database: str, connection: asyncpg.Connection
) -> None:
    transaction = connection.transaction()
    await transaction.start()
    await insert(connection, "looked before")
    async with listening(database) as heard:
        other = await asyncpg.connect(database)
        await parked(other)
        await insert(other, "rings")
        assert await heard.keys(1) == ["rings"]

        await transaction.commit()

        assert await heard.keys(1) == ["looked before"]
        await other.close()


async def test_fast_changes_make_it_busy_and_writers_are_spared_the_bell(
    database: str, connection: asyncpg.Connection
) -> None:
    settings = Settings(idle_poll_seconds=60, busy_from_rate=20, calm_below_rate=10)
    async with listening(database, settings) as heard:
        await parked(connection)
        told = 0
        while not heard.listener.statistics().is_busy:
            await insert(connection, f"fast {told}")
            assert await heard.keys(1) == [f"fast {told}"]
            told += 1
        async with asyncio.timeout(PATIENCE_SECONDS):
            while await is_parked(connection):
                await insert(connection, f"fast {told}")
                assert await heard.keys(1) == [f"fast {told}"]
                told += 1

        await parked(connection)
        assert not heard.listener.statistics().is_busy
        await insert(connection, "calm")
        assert await heard.keys(1) == ["calm"]


@pytest.mark.parametrize("which", ["LISTEN", "tick"])
async def test_a_terminated_connection_comes_back_and_nothing_is_missing(
    database: str, connection: asyncpg.Connection, which: str
) -> None:
    async with listening(database) as heard:
        await parked(connection)
        for number in range(5):
            before = heard.listener.statistics().reconnections
            ended = await connection.fetch(
                """
                SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                 WHERE datname = current_database() AND application_name = 'brain'
                   AND pid <> pg_backend_pid()
                   AND ($1 = 'LISTEN') = (query ~ 'advisory_lock_shared|pg_listening|LISTEN')
                """,
                which,
            )
            assert ended
            await insert(connection, f"meanwhile {number}")
            await reconnected(heard.listener, before + 1)
            await insert(connection, f"afterwards {number}")

            assert await heard.keys(2) == [f"meanwhile {number}", f"afterwards {number}"]
            await parked(connection)
        assert heard.is_empty


async def test_a_link_that_goes_dead_without_a_word_is_noticed_and_nothing_is_missing(
    database: str, connection: asyncpg.Connection
) -> None:
    settings = Settings(idle_poll_seconds=0.2, database_timeout_seconds=0.3)
    async with proxy_to(database) as (url, proxy), listening(url, settings) as heard:
        await parked(connection)
        proxy.swallow()
        await insert(connection, "in the dark")
        async with asyncio.timeout(PATIENCE_SECONDS):
            while heard.listener.statistics().is_live:
                await asyncio.sleep(0.01)
        proxy.restore()

        assert await heard.keys(1) == ["in the dark"]


async def test_by_default_a_dead_link_is_noticed_within_ten_seconds() -> None:
    settings = Settings()

    assert settings.idle_poll_seconds + settings.database_timeout_seconds < 10


async def test_a_log_that_was_replaced_is_said_and_then_followed(
    database: str, connection: asyncpg.Connection
) -> None:
    async with listening(database) as heard:
        await insert(connection, "a")
        assert await heard.keys(1) == ["a"]
        async with connection.transaction():
            await connection.execute("SELECT brain.begin_history()")
            await insert(connection, "lost with the old history")

        lost = await heard.batch()
        assert (lost.events, lost.follows) == ((), False)

        await insert(connection, "b")
        assert await heard.keys(1) == ["b"]


async def test_two_nodes_tell_the_same_in_the_same_order(
    database: str, connection: asyncpg.Connection
) -> None:
    count = 200
    async with listening(database) as one, listening(database) as other:
        writers = [await asyncpg.connect(database) for _ in range(4)]

        async def write(number: int) -> None:
            for step in range(count // len(writers)):
                await insert(writers[number], f"{number}/{step}")

        await asyncio.gather(*map(write, range(len(writers))))
        told = await one.keys(count)

        assert await other.keys(count) == told
        assert len(set(told)) == count
        for writer in writers:
            await writer.close()
