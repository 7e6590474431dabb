"""The columns of watched tables, as a node knows them."""

from __future__ import annotations

import asyncio

import asyncpg

from brain.database.connection import opened_pool
from brain.database.watches import WatchedColumns
from brain.message.cursor import Cursor
from brain.message.event import Batch
from brain.message.matching import Topic, parse_filter
from tests.database.log_reading import events_after, reading

WATCH = "SELECT brain.watch('things', 'things', '{columns}')"


def filtered(channel: str, column: str) -> list[Topic]:
    return [Topic(channel, where=parse_filter({column: 1}))]


async def test_every_change_of_a_watch_is_an_event_for_the_nodes(
    database: str, connection: asyncpg.Connection
) -> None:
    await connection.execute("CREATE TABLE things (id int PRIMARY KEY, a int)")
    async with reading(database) as log:
        start = await log.tick()
        await connection.execute(WATCH.replace("columns", "id"))
        await connection.execute("SELECT brain.unwatch('things')")
        await connection.execute(WATCH.replace("columns", "id"))
        await connection.execute("DROP TABLE things; SELECT brain.unwatch_dropped()")
        events = await events_after(log, start)

    assert [(event.channel, event.type) for event in events] == [
        ("brain.watches", type) for type in ("watched", "unwatched", "watched", "unwatched")
    ]


async def test_a_read_that_began_before_a_change_decides_nothing(
    database: str, connection: asyncpg.Connection
) -> None:
    """Of two that ask at the same time one waits for the other's read, if that began later."""
    await connection.execute("CREATE TABLE things (id int PRIMARY KEY, a int)")
    await connection.execute(WATCH.replace("columns", "id"))
    async with opened_pool(database) as pool:
        columns = WatchedColumns(4.0)
        columns.connect(pool)
        assert await columns.refusal(filtered("things", "a")) == "things has no column a; it has id"
        first = asyncio.create_task(columns.refusal(filtered("things", "a")))
        await asyncio.sleep(0)
        await connection.execute(WATCH.replace("columns", "id,a"))

        assert await columns.refusal(filtered("things", "a")) is None
        await first


async def test_while_the_database_is_away_what_is_known_decides(
    database: str, connection: asyncpg.Connection
) -> None:
    await connection.execute("CREATE TABLE things (id int PRIMARY KEY)")
    await connection.execute(WATCH.replace("columns", "id"))
    async with opened_pool(database) as pool:
        columns = WatchedColumns(0.2)
        columns.connect(pool)
        assert await columns.refusal(filtered("things", "id")) is None
        async with connection.transaction():
            await connection.execute("LOCK TABLE brain.watched IN ACCESS EXCLUSIVE MODE")
            assert await columns.refusal(filtered("things", "id")) is None
            assert "no column a" in str(await columns.refusal(filtered("things", "a")))
            assert await columns.refusal(filtered("news", "a")) is None


async def test_the_columns_are_read_again_when_a_watch_has_changed_and_after_a_gap(
    database: str, connection: asyncpg.Connection
) -> None:
    await connection.execute("CREATE TABLE things (id int PRIMARY KEY, a int)")
    async with opened_pool(database) as pool, reading(database) as log:
        columns = WatchedColumns(4.0)
        columns.connect(pool)
        running = asyncio.create_task(columns.run())
        for was, now in (("id", "a"), ("a", "id")):
            await connection.execute(WATCH.replace("columns", was))
            assert await columns.refusal(filtered("things", was)) is None
            start = await log.tick()
            await connection.execute(WATCH.replace("columns", now))
            assert await columns.refusal(filtered("things", was)) is None  # not known yet

            if now == "a":
                events = tuple(await events_after(log, start))
                columns.deliver(Batch(events, Cursor(1, 2)))
            else:
                columns.deliver(Batch((), Cursor(1, 2), follows=False))

            async with asyncio.timeout(10):
                while await columns.refusal(filtered("things", was)) is None:
                    await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.wait([running])
