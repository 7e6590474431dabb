from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from brain.database.connection import opened_pool
from brain.database.snapshot import SnapshotReader
from brain.database.table_access import TableAccess
from brain.errors import LogUnavailable, SnapshotTooLarge
from tests.database.log_reading import events_after, keys, parsed, reading
from tests.tasks import insert

pytestmark = pytest.mark.postgres_versions

TASKS = frozenset({"tasks"})


@pytest.fixture
async def pool(database: str) -> AsyncIterator[asyncpg.Pool]:
    async with opened_pool(database) as pool:
        yield pool


async def test_rows_have_their_watched_columns(
    pool: asyncpg.Pool, connection: asyncpg.Connection
) -> None:
    await connection.execute("INSERT INTO tasks (id, title, progress) VALUES ('a', 'secret', 2)")

    snapshot = await SnapshotReader(TableAccess(10_000)).read(pool, TASKS)

    (row,) = map(parsed, snapshot.tables["tasks"])
    assert (row["id"], row["progress"]) == ("a", 2)
    assert "title" not in row


async def test_what_was_open_comes_after_the_rows(
    database: str, pool: asyncpg.Pool, connection: asyncpg.Connection
) -> None:
    await insert(connection, "before")
    late = await asyncpg.connect(database)
    transaction = late.transaction()
    await transaction.start()
    await insert(late, "open")

    snapshot = await SnapshotReader(TableAccess(10_000)).read(pool, TASKS)
    await transaction.commit()
    await late.close()

    assert [parsed(row)["id"] for row in snapshot.tables["tasks"]] == ["before"]
    async with reading(database) as log:
        assert keys(await events_after(log, snapshot.cursor)) == [["open"]]


async def test_several_tables_are_seen_at_one_moment(
    database: str, pool: asyncpg.Pool, connection: asyncpg.Connection
) -> None:
    """Each transaction writes to both, so that a table seen earlier would have fewer rows."""
    await connection.execute(
        """
        CREATE TABLE orders (id int PRIMARY KEY);
        SELECT brain.watch('orders', 'orders', '{id}');
        """
    )
    reader = SnapshotReader(TableAccess(1_000_000))
    async with writing(database):
        for _ in range(30):
            found = await reader.read(pool, frozenset({"tasks", "orders", "unwatched"}))
            assert set(found.tables) == {"tasks", "orders"}
            assert {int(parsed(row)["id"]) for row in found.tables["tasks"]} == {
                parsed(row)["id"] for row in found.tables["orders"]
            }


@asynccontextmanager
async def writing(database: str) -> AsyncIterator[None]:
    """Insert the same id into two tables, again and again, until the context ends."""
    stop = asyncio.Event()

    async def write() -> None:
        writer = await asyncpg.connect(database)
        number = 0
        while not stop.is_set():
            number += 1
            async with writer.transaction():
                await insert(writer, str(number))
                await writer.execute("INSERT INTO orders VALUES ($1)", number)
        await writer.close()

    task = asyncio.create_task(write())
    try:
        yield
    finally:
        stop.set()
        await task


@pytest.mark.one_version
async def test_rows_and_what_follows_them_join_without_a_seam(
    database: str, pool: asyncpg.Pool
) -> None:
    """Writers count up in overlapping transactions; after each snapshot, no step is missing."""
    chance = random.Random(5221)
    stop = asyncio.Event()

    async def count(id: str) -> int:
        writer = await asyncpg.connect(database)
        await insert(writer, id)
        steps = 0
        while not stop.is_set():
            async with writer.transaction():
                steps += 1
                await writer.execute("UPDATE tasks SET progress = $1 WHERE id = $2", steps, id)
                await asyncio.sleep(chance.random() * 0.005)
        await writer.close()
        return steps

    async with asyncio.TaskGroup() as tasks:
        counting = [tasks.create_task(count(str(number))) for number in range(4)]
        reader = SnapshotReader(TableAccess(100_000))
        snapshots = [await reader.read(pool, TASKS) for _ in range(50)]
        stop.set()

    final = {str(number): task.result() for number, task in enumerate(counting)}
    async with reading(database) as log:
        for snapshot in snapshots:
            rows = map(parsed, snapshot.tables["tasks"])
            replica = {row["id"]: row["progress"] for row in rows}
            for event in await events_after(log, snapshot.cursor):
                row = parsed(event.data)
                assert row["progress"] == replica.get(row["id"], -1) + 1
                replica[row["id"]] = row["progress"]
            assert replica == final


@pytest.mark.one_version
async def test_callers_at_the_same_time_share_one_snapshot(
    pool: asyncpg.Pool, connection: asyncpg.Connection
) -> None:
    reader = SnapshotReader(TableAccess(10_000))
    found = await asyncio.gather(*(reader.read(pool, TASKS) for _ in range(50)))

    # The first one begins to read the watches before the others have asked.
    assert len({id(one) for one in found}) <= 2
    assert await reader.read(pool, TASKS) not in found


@pytest.mark.one_version
async def test_a_caller_that_is_cancelled_does_not_cancel_the_others(
    pool: asyncpg.Pool, connection: asyncpg.Connection
) -> None:
    reader = SnapshotReader(TableAccess(10_000))
    leaving = asyncio.create_task(reader.read(pool, TASKS))
    staying = asyncio.create_task(reader.read(pool, TASKS))
    await asyncio.sleep(0)
    leaving.cancel()

    assert (await staying).tables == {"tasks": []}


async def test_tables_that_are_too_large_are_refused(
    pool: asyncpg.Pool, connection: asyncpg.Connection
) -> None:
    await insert(connection, "a", "b")

    with pytest.raises(SnapshotTooLarge, match="more than 100 bytes"):
        await SnapshotReader(TableAccess(100)).read(pool, TASKS)


async def test_without_the_database_the_log_is_unavailable(database: str) -> None:
    async with opened_pool(database) as pool:
        pass
    with pytest.raises(LogUnavailable):
        await SnapshotReader(TableAccess(10_000)).read(pool, TASKS)


async def test_a_value_that_cannot_be_shown_is_left_out_of_its_row_alone(
    database: str, connection: asyncpg.Connection
) -> None:
    await connection.execute(
        """
        CREATE TYPE mood AS ENUM ('good', 'bad');
        CREATE TABLE things (id int PRIMARY KEY, a mood, n numeric);
        SELECT brain.watch('things', 'things', '{id,a,n}');
        INSERT INTO things VALUES (1, 'good', 1.10), (2, 'bad', 1e400), (3, 'good', NULL);
        DELETE FROM pg_enum WHERE enumtypid = 'mood'::regtype AND enumlabel = 'bad';
        """
    )
    async with opened_pool(database) as pool:
        snapshot = await SnapshotReader(TableAccess(1_000_000)).read(pool, frozenset({"things"}))

    rows = sorted(snapshot.tables["things"])
    assert rows[0] == '{"id" : 1, "a" : "good", "n" : 1.10}'
    assert rows[1] == f'{{"id" : 2, "n" : 1{"0" * 400}}}'
    assert rows[2] == '{"id" : 3, "a" : "good", "n" : null}'
