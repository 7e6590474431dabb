from __future__ import annotations

import asyncpg
import pytest

from brain.database.log import PAGE_EVENTS, Log
from brain.errors import CursorLost
from brain.message.cursor import Cursor
from brain.message.event import Operation
from brain.settings import Settings
from tests.database.log_reading import batches_after, events_after, keys, parsed, reading
from tests.tasks import insert

pytestmark = pytest.mark.postgres_versions


async def test_what_is_committed_is_read_once_and_in_order(
    database: str, connection: asyncpg.Connection
) -> None:
    async with reading(database) as log:
        start = await log.tick()
        await insert(connection, "a", "b")
        await connection.execute("UPDATE tasks SET progress = 1 WHERE id = 'a'")

        events = await events_after(log, start)

        assert [(event.operation, parsed(event.key)) for event in events] == [
            (Operation.INSERT, ["a"]),
            (Operation.INSERT, ["b"]),
            (Operation.UPDATE, ["a"]),
        ]
        assert await events_after(log, await log.tick()) == []


async def test_a_tick_is_only_cut_when_something_is_new(
    database: str, connection: asyncpg.Connection
) -> None:
    async with reading(database) as log:
        await insert(connection, "a")
        first = await log.tick()

        assert await log.tick() == first


@pytest.mark.parametrize("reader_is_behind", [False, True])
async def test_the_newest_events_come_with_the_time_of_their_tick(
    database: str, connection: asyncpg.Connection, reader_is_behind: bool
) -> None:
    async with reading(database) as log:
        cursor = await log.tick()
        for id in "abcd" if reader_is_behind else "a":
            await insert(connection, id)
            if reader_is_behind:
                await log.tick()  # another node has cut it
        newest = await log.newest(cursor)
        while newest.cursor != (last := await log.newest(newest.cursor)).cursor:
            newest = last

        at = await connection.fetchval(
            "SELECT at FROM brain.ticks WHERE id = $1", newest.cursor.tick
        )
        assert newest.tick_at == at


async def test_a_rolled_back_transaction_leaves_nothing(
    database: str, connection: asyncpg.Connection
) -> None:
    async with reading(database) as log:
        start = await log.tick()
        transaction = connection.transaction()
        await transaction.start()
        await insert(connection, "a")
        await transaction.rollback()

        assert await events_after(log, start) == []


async def test_a_rolled_back_savepoint_leaves_nothing(
    database: str, connection: asyncpg.Connection
) -> None:
    async with reading(database) as log:
        start = await log.tick()
        async with connection.transaction():
            await insert(connection, "kept")
            savepoint = connection.transaction()
            await savepoint.start()
            await insert(connection, "gone")
            await savepoint.rollback()

        assert keys(await events_after(log, start)) == [["kept"]]


async def test_a_transaction_that_commits_late_is_not_lost_though_its_ids_are_lower(
    database: str, connection: asyncpg.Connection
) -> None:
    async with reading(database) as log:
        start = await log.tick()
        late = await asyncpg.connect(database)
        transaction = late.transaction()
        await transaction.start()
        await insert(late, "late")
        await insert(connection, "early")

        first = await batches_after(log, start)
        middle = await log.tick()
        await transaction.commit()
        second = await batches_after(log, middle)
        await late.close()

        assert keys(event for events in first for event in events) == [["early"]]
        assert keys(event for events in second for event in events) == [["late"]]
        assert second[0][0].id < first[0][0].id


async def test_the_changes_of_a_row_come_in_commit_order_whatever_the_transaction_ids(
    database: str, connection: asyncpg.Connection
) -> None:
    await insert(connection, "row", "other")
    async with reading(database) as log:
        start = await log.tick()
        older = await asyncpg.connect(database)
        transaction = older.transaction()
        await transaction.start()
        await older.execute("UPDATE tasks SET progress = 9 WHERE id = 'other'")
        await connection.execute("UPDATE tasks SET progress = 1 WHERE id = 'row'")
        await older.execute("UPDATE tasks SET progress = 2 WHERE id = 'row'")
        await transaction.commit()
        await older.close()

        events = await events_after(log, start)

        assert [parsed(e.data)["progress"] for e in events if e.key == '["row"]'] == [1, 2]


async def test_the_changes_of_a_transaction_come_together(
    database: str, connection: asyncpg.Connection
) -> None:
    async with reading(database) as log:
        start = await log.tick()
        async with connection.transaction():
            await insert(connection, "a")
            await log.tick()
            await insert(connection, "b")
            await log.tick()

        batches = [events for events in await batches_after(log, start) if events]

        assert [keys(events) for events in batches] == [[["a"], ["b"]]]


async def test_ten_thousand_updates_in_one_transaction_are_read_page_by_page_in_order(
    database: str, connection: asyncpg.Connection
) -> None:
    await connection.execute(
        "INSERT INTO tasks (id) SELECT n::text FROM generate_series(1, 10000) n"
    )
    async with reading(database) as log:
        start = await log.tick()
        await connection.execute("UPDATE tasks SET progress = id::int")

        batches = await batches_after(log, start)

        assert max(map(len, batches)) == PAGE_EVENTS
        events = [event for events in batches for event in events]
        assert len({event.id for event in events}) == 10_000
        assert [event.id for event in events] == sorted(event.id for event in events)
        assert {parsed(e.data)["progress"] for e in events} == set(range(1, 10_001))


@pytest.mark.one_version
async def test_many_ticks_are_one_batch_at_the_first_read(
    database: str, connection: asyncpg.Connection
) -> None:
    """Planning the query again for each tick would take longer than the database timeout."""
    async with reading(database) as log:
        start = await log.tick()
        for number in range(PAGE_EVENTS - 1):
            await insert(connection, str(number))
            await log.tick()

    batch = await Log(connection, Settings().database_timeout_seconds).after(start)

    assert len(batch.events) == PAGE_EVENTS - 1
    assert len({event.cursor.tick for event in batch.events}) == PAGE_EVENTS - 1


async def test_reading_goes_on_in_the_middle_of_a_tick(
    database: str, connection: asyncpg.Connection
) -> None:
    async with reading(database) as log:
        start = await log.tick()
        async with connection.transaction():
            await insert(connection, "a", "b", "c")
        (events,) = await batches_after(log, start)
        newest = await log.tick()

        rest = await log.after(Cursor(newest.tick, newest.nonce, events[0].id))

        assert keys(rest.events) == [["b"], ["c"]]


@pytest.mark.parametrize("tick", ["too old", "of another history", "from the future"])
async def test_a_cursor_that_the_log_does_not_hold_is_refused(
    database: str, connection: asyncpg.Connection, tick: str
) -> None:
    async with reading(database) as log:
        start = await log.tick()
        await insert(connection, "a")
        newest = await log.tick()
        cursor = {
            "too old": start,
            "of another history": Cursor(start.tick, start.nonce + 1),
            "from the future": Cursor(newest.tick + 10, newest.nonce),
        }[tick]
        if tick == "too old":
            await connection.execute("DELETE FROM brain.ticks WHERE id = $1", start.tick)

        with pytest.raises(CursorLost):
            await log.after(cursor)


async def test_a_log_restored_into_a_server_with_lower_transaction_ids_begins_a_new_history(
    database: str, connection: asyncpg.Connection
) -> None:
    async with reading(database) as log:
        await insert(connection, "a")
        before = await log.tick()
        await connection.execute(
            "UPDATE brain.ticks SET snapshot = '999999999:999999999:' WHERE id = $1", before.tick
        )

        after = await log.tick()

        assert after.tick == before.tick + 1
        assert after.nonce != before.nonce
        with pytest.raises(CursorLost):
            await log.after(before)
        await insert(connection, "b")
        assert keys(await events_after(log, after)) == [["b"]]
