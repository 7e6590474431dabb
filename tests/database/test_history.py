from __future__ import annotations

import asyncio

import asyncpg
import pytest

from brain.database.connection import opened_pool
from brain.database.history import MOST_PAGES, HistoryReader
from brain.database.log import PAGE_EVENTS, Log
from brain.errors import CursorLost, LogUnavailable
from brain.message.cursor import Cursor
from tests.tasks import insert


def counting_pool(database: str) -> tuple[list[object], asyncpg.Pool]:
    """Return a pool, and a list that grows whenever it lends a connection."""
    lent: list[object] = []

    async def count(connection: asyncpg.pool.PoolConnectionProxy) -> None:
        lent.append(connection)

    return lent, asyncpg.create_pool(database, min_size=0, max_size=4, setup=count)


async def test_clients_that_resume_after_one_cursor_at_once_share_a_read(
    database: str, connection: asyncpg.Connection
) -> None:
    log = Log(connection, 5)
    start = await log.tick()
    await insert(connection, "a")
    await log.tick()
    lent, pool = counting_pool(database)
    async with pool:
        history = HistoryReader(pool, 5)
        batches = await asyncio.gather(*(history.after(start) for _ in range(100)))
        assert len(lent) == 1
        assert {batch.events[0].key_text for batch in batches} == {"a"}

        await history.after(start)
        assert len(lent) == 1


async def test_a_caller_that_is_cancelled_does_not_cancel_the_others(
    database: str, connection: asyncpg.Connection
) -> None:
    log = Log(connection, 5)
    start = await log.tick()
    await insert(connection, "a")
    await log.tick()
    async with opened_pool(database) as pool:
        history = HistoryReader(pool, 5)
        leaver = asyncio.create_task(history.after(start))
        stayer = asyncio.create_task(history.after(start))
        await asyncio.sleep(0)
        leaver.cancel()

        assert len((await stayer).events) == 1


async def test_different_places_soon_lead_to_the_same_page(
    database: str, connection: asyncpg.Connection
) -> None:
    log = Log(connection, 5)
    cursors = [await log.tick()]
    for _ in range(1030):
        await connection.execute("SELECT brain.publish('a', 'b', '1')")
        cursors.append(await log.tick())
    async with opened_pool(database) as pool:
        history = HistoryReader(pool, 5)
        ends = {(await history.after(cursor)).cursor for cursor in cursors[100:200]}

    assert ends == {cursor for cursor in cursors if cursor.tick == 1024}


@pytest.mark.postgres_versions
async def test_a_page_serves_every_cursor_in_it(
    database: str, connection: asyncpg.Connection
) -> None:
    log = Log(connection, 5)
    cursors = [await log.tick()]
    for _ in range(5):
        await connection.execute("SELECT brain.publish('a', 'b', '1') FROM generate_series(1, 3)")
        cursors.append(await log.tick())
    everything = (await log.after(cursors[0])).events
    lent, pool = counting_pool(database)
    async with pool:
        history = HistoryReader(pool, 5)
        for cursor in (*cursors[:-1], *(event.cursor for event in everything)):
            batch = await history.after(cursor)
            following = [event.id for event in everything if event.place > cursor.place]
            assert [event.id for event in batch.events] == following
            assert batch.cursor == cursors[-1]
        assert len(lent) == 1

        for unknown in (cursors[2].tick, 99):
            with pytest.raises(CursorLost):
                await history.after(Cursor(unknown, 1))
        await history.after(cursors[-1])
        assert len(lent) == 4


async def test_only_the_last_pages_are_kept(
    database: str, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brain.database.log.PAGE_EVENTS", 1)
    log = Log(connection, 5)
    cursors = [await log.tick()]
    for _ in range(MOST_PAGES + 1):
        await connection.execute("SELECT brain.publish('a', 'b', '1')")
        cursors.append(await log.tick())
    lent, pool = counting_pool(database)
    async with pool:
        history = HistoryReader(pool, 5)
        for cursor in cursors[:-1]:
            await history.after(cursor)
        await history.after(cursors[1])
        assert len(lent) == MOST_PAGES + 1
        await history.after(cursors[0])
        assert len(lent) == MOST_PAGES + 2


async def test_large_pages_are_fewer(
    database: str, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brain.database.log.PAGE_EVENTS", 1)
    monkeypatch.setattr("brain.database.history.MOST_BYTES", 125_000)
    log = Log(connection, 5)
    cursors = [await log.tick()]
    for _ in range(3):
        await connection.execute("SELECT brain.publish('a', 'b', to_jsonb(repeat('x', 50000)))")
        cursors.append(await log.tick())
    lent, pool = counting_pool(database)
    async with pool:
        history = HistoryReader(pool, 5)
        for cursor in cursors[:-1]:
            await history.after(cursor)
        for cursor, kept in ((cursors[2], True), (cursors[1], True), (cursors[0], False)):
            before = len(lent)
            await history.after(cursor)
            assert (len(lent) == before) == kept


async def test_a_page_is_no_longer_than_it_may_be(
    database: str, connection: asyncpg.Connection
) -> None:
    log = Log(connection, 5)
    start = await log.tick()
    await connection.execute(
        "SELECT brain.publish('a', 'b', '1') FROM generate_series(1, $1)", PAGE_EVENTS + 1
    )
    await log.tick()
    async with opened_pool(database) as pool:
        history = HistoryReader(pool, 5)
        first = await history.after(start)
        assert len(first.events) == PAGE_EVENTS
        assert len((await history.after(first.cursor)).events) == 1


@pytest.mark.postgres_versions
async def test_a_cursor_that_the_log_does_not_know_is_lost(database: str) -> None:
    async with opened_pool(database) as pool:
        history = HistoryReader(pool, 5)
        for _ in range(2):
            with pytest.raises(CursorLost):
                await history.after(Cursor(99, 1))
        assert not await history.holds(Cursor(99, 1))


async def test_an_unreachable_log_raises_log_unavailable(database: str) -> None:
    async with opened_pool(database) as pool:
        await pool.close()
        with pytest.raises(LogUnavailable):
            await HistoryReader(pool, 5).after(Cursor(0, 1))
