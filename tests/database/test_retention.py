from __future__ import annotations

import asyncio
import re
from urllib.parse import urlsplit

import asyncpg
import pytest

from brain.database import retention
from brain.database.connection import opened_pool
from brain.database.log import Log
from brain.database.migrations import migrate
from brain.errors import CursorLost
from brain.message.cursor import Cursor
from brain.problems import Problems
from tests.database.log_reading import events_after, reading
from tests.postgres import as_role, new_database, ordinary_role
from tests.schemas import every_schema
from tests.tasks import insert

pytestmark = pytest.mark.postgres_versions

ALL_SLOTS = """
    SELECT sum(pg_total_relation_size(oid))::bigint FROM pg_class WHERE relname ~ '^events_[0-3]$'
"""


async def trim(connection: asyncpg.Connection, keep: str = "0 s") -> int:
    emptied: int = await connection.fetchval("SELECT brain.trim($1::text::interval)", keep)
    return emptied


async def test_old_events_are_trimmed_and_their_cursors_are_refused(
    database: str, connection: asyncpg.Connection
) -> None:
    async with reading(database) as log:
        start = await log.tick()
        await insert(connection, "old")
        newest = await log.tick()

        assert await trim(connection) == 1

        assert await connection.fetchval("SELECT count(*) FROM brain.events") == 0
        with pytest.raises(CursorLost):
            await log.after(start)
        await insert(connection, "new")
        assert [event.key for event in await events_after(log, newest)] == [["new"]]


async def test_what_is_not_old_yet_is_kept(database: str, connection: asyncpg.Connection) -> None:
    async with reading(database) as log:
        start = await log.tick()
        await insert(connection, "a")
        await log.tick()

        assert await trim(connection, "1 hour") == 0
        assert [event.key for event in await events_after(log, start)] == [["a"]]


async def test_what_no_tick_holds_yet_is_kept_however_old(
    database: str, connection: asyncpg.Connection
) -> None:
    async with reading(database) as log:
        start = await log.tick()
        await insert(connection, "a")

        assert await trim(connection) == 0
        assert [event.key for event in await events_after(log, start)] == [["a"]]


async def test_a_transaction_that_is_open_for_long_loses_nothing(
    database: str, connection: asyncpg.Connection
) -> None:
    async with reading(database) as log:
        late = await asyncpg.connect(database)
        transaction = late.transaction()
        await transaction.start()
        await insert(late, "late")
        await insert(connection, "early")
        newest = await log.tick()

        assert await trim(connection) == 0

        await transaction.commit()
        await late.close()
        assert [event.key for event in await events_after(log, newest)] == [["late"]]


async def test_a_page_that_is_trimmed_while_it_is_read_is_refused_instead_of_empty(
    database: str, connection: asyncpg.Connection
) -> None:
    """TRUNCATE empties a table for older snapshots too: the check must follow the read."""
    source = await connection.fetchval("SELECT pg_get_functiondef('brain.read'::regproc)")
    between = "ELSIF place = 0 THEN"
    wait = "PERFORM pg_advisory_lock(1), pg_advisory_unlock(1);"
    assert source.count(between) == 1
    async with reading(database) as log:
        start = await log.tick()
        await insert(connection, "a")
        await log.tick()
        await connection.execute(source.replace(between, f"{between} {wait}"))
        await connection.execute("SELECT pg_advisory_lock(1)")
        page = asyncio.create_task(log.after(start))
        await waits_for_a_lock(connection)

        assert await trim(connection) == 1
        await connection.execute("SELECT pg_advisory_unlock(1)")

        with pytest.raises(CursorLost):
            await page


async def test_writers_go_on_to_the_next_slot_when_half_of_the_time_has_passed(
    postgres: str,
) -> None:
    """Also where the node's role is no superuser."""
    async with (
        ordinary_role(postgres, "CREATEROLE") as (role, admin),
        new_database(postgres) as url,
    ):
        await admin.execute(f"ALTER DATABASE {urlsplit(url).path[1:]} OWNER TO {role}")
        await admin.execute(f"GRANT brain_owner TO {role}")
        await migrate(as_role(url, role), every_schema())
        node = await asyncpg.connect(as_role(url, role))
        written = []
        for number in range(6):
            await insert(node, str(number))
            written.append(
                await node.fetchval(
                    "SELECT tableoid::regclass::text FROM brain.events ORDER BY id DESC LIMIT 1"
                )
            )
            await node.execute(
                "UPDATE brain.current_slot SET since = since - interval '31 minutes'"
            )
            assert await trim(node, "1 hour") == 0
        await node.close()

    # The first slot is not empty yet when its next turn comes.
    assert written == [f"brain.events_{number}" for number in (0, 1, 2, 3, 3, 3)]


async def waits_for_a_lock(connection: asyncpg.Connection) -> None:
    """Wait until another session of this database waits for an advisory lock."""
    async with asyncio.timeout(20):
        while not await connection.fetchval(
            """
            SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
                              AND database = (SELECT oid FROM pg_database
                                               WHERE datname = current_database()))
            """
        ):
            await asyncio.sleep(0.01)


@pytest.mark.one_version
async def test_in_the_long_run_the_log_keeps_its_size_and_no_cursor_skips_anything(
    database: str, connection: asyncpg.Connection
) -> None:
    stop = asyncio.Event()

    async def write() -> int:
        async with asyncpg.create_pool(database, min_size=1, max_size=1) as writer:
            await writer.execute("INSERT INTO tasks (id, progress) VALUES ('a', 1)")
            count = 1
            while not stop.is_set():
                count += 1
                await writer.execute("UPDATE tasks SET progress = $1 WHERE id = 'a'", count)
        return count

    async def follow(log: Log, seconds: float) -> tuple[list[float], list[int]]:
        """Return the values that were read, and the sizes of the log meanwhile."""
        read: list[float] = []
        sizes: list[int] = []
        cursor = await log.tick()
        writing = asyncio.create_task(write())
        until = asyncio.get_running_loop().time() + seconds
        while asyncio.get_running_loop().time() < until or cursor != await log.tick():
            newest = await log.tick()
            while cursor != newest:
                batch = await log.after(cursor)
                read += [event.data["progress"] for event in batch.events if event.data]
                cursor = batch.cursor
            await trim(connection, "500 ms")
            sizes.append(await connection.fetchval(ALL_SLOTS))
            if asyncio.get_running_loop().time() > until:
                stop.set()
                await writing
        assert read == list(range(1, writing.result() + 1))
        return read, sizes

    async with reading(database) as log:
        start: Cursor = await log.tick()
        read, sizes = await follow(log, seconds=8)
        with pytest.raises(CursorLost):
            await log.after(start)

    assert len(read) > 100
    # The log holds the events of the last seconds, not all that were written.
    assert max(sizes[len(sizes) // 2 :]) <= 1.5 * max(sizes[: len(sizes) // 2])
    ticks = await connection.fetchval("SELECT count(*) FROM brain.ticks")
    assert ticks < len(read) / 2


async def test_what_a_step_of_trimming_warns_of_is_a_problem(
    database: str, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "PAUSE_SECONDS", 0.01)
    trim_function: str = await connection.fetchval(
        "SELECT pg_get_functiondef('brain.trim'::regproc)"
    )
    warning = "BEGIN RAISE NOTICE 'all is well'; RAISE WARNING 'a step of %', 'trimming failed';"
    await connection.execute(re.sub(r"\bBEGIN\b", warning, trim_function, count=1))

    assert await problem_of_trimming(database) == "a step of trimming failed"


async def test_a_log_that_cannot_be_trimmed_is_a_problem(
    database: str, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "PAUSE_SECONDS", 0.01)
    await connection.execute("ALTER FUNCTION brain.trim RENAME TO elsewhere")

    text = await problem_of_trimming(database)
    assert text.startswith("could not trim the log, trying again: function brain.trim(interval)")


async def problem_of_trimming(database: str) -> str:
    """Trim until there is a problem twice; return its text."""
    problems = Problems()
    async with opened_pool(database) as pool:
        trimming = asyncio.create_task(retention.trim_log(pool, 3600, problems))
        async with asyncio.timeout(20):
            while not (recent := problems.recent()) or recent[0].count < 2:
                await asyncio.sleep(0.01)
        trimming.cancel()
        await asyncio.wait([trimming])
    (problem,) = problems.recent()
    assert problem.address == "retention"
    return problem.text
