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
from brain.message.event import Event
from brain.problems import Problems
from tests.database.log_reading import events_after, keys, parsed, reading
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
        assert keys(await events_after(log, newest)) == [["new"]]


async def test_what_is_not_old_yet_is_kept(database: str, connection: asyncpg.Connection) -> None:
    async with reading(database) as log:
        start = await log.tick()
        await insert(connection, "a")
        await log.tick()

        assert await trim(connection, "1 hour") == 0
        assert keys(await events_after(log, start)) == [["a"]]


async def test_what_no_tick_holds_yet_is_kept_however_old(
    database: str, connection: asyncpg.Connection
) -> None:
    async with reading(database) as log:
        start = await log.tick()
        await insert(connection, "a")

        assert await trim(connection) == 0
        assert keys(await events_after(log, start)) == [["a"]]


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
        assert keys(await events_after(log, newest)) == [["late"]]


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


@pytest.mark.usefixtures("template")
async def test_writers_go_on_to_the_next_slot_when_half_of_the_time_has_passed(
    postgres: str,
) -> None:
    """Also where the node's role is no superuser."""
    async with (
        ordinary_role(postgres, "CREATEROLE") as (role, admin),
        new_database(postgres) as url,
    ):
        await admin.execute(f"ALTER DATABASE {urlsplit(url).path[1:]} OWNER TO {role}")
        await admin.execute(f"GRANT brain_owner, brain_reader TO {role}")
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
                "UPDATE brain.current_block SET since = since - interval '31 minutes'"
            )
            assert await trim(node, "1 hour") == 0
        await node.close()

    # The first slot is not empty yet when its next turn comes.
    assert written == [f"brain.events_{number}" for number in (0, 1, 2, 3, 3, 3)]


async def test_writers_that_move_to_other_slots_lose_and_double_nothing(
    database: str, connection: asyncpg.Connection
) -> None:
    """Nor do the ids of a row ever fall, whichever slots the changes are in."""
    stop = asyncio.Event()

    async def write(id: str) -> int:
        writer = await asyncpg.connect(database)
        await insert(writer, id)
        steps = 0
        while not stop.is_set():
            async with writer.transaction():
                for _ in range(3):
                    steps += 1
                    await writer.execute("UPDATE tasks SET progress = $1 WHERE id = $2", steps, id)
        await writer.close()
        return steps

    async with reading(database) as log:
        cursor = start = await log.tick()
        async with asyncio.TaskGroup() as tasks:
            writing = [tasks.create_task(write(str(number))) for number in range(4)]
            read: list[Event] = []
            slots: set[str] = set()
            while len(slots) < 4:
                await connection.execute("SELECT brain.rotate_slot('0')")
                batch = await log.newest(cursor)
                cursor = batch.cursor
                read += batch.events
                rows = await connection.fetch(
                    "SELECT DISTINCT tableoid::regclass::text AS slot FROM brain.events"
                )
                slots |= {row["slot"] for row in rows}
            stop.set()
        read += await events_after(log, cursor)
        again = await events_after(log, start)

    assert slots == {f"brain.events_{number}" for number in range(4)}
    assert [event.id for event in again] == [event.id for event in read]
    for number, task in enumerate(writing):
        rows_of_one = [event for event in read if event.key_text == str(number)]
        ids = [event.id for event in rows_of_one]
        assert ids == sorted(set(ids))
        values = [parsed(event.data)["progress"] for event in rows_of_one]
        assert values == list(range(task.result() + 1))


async def warnings_of(connection: asyncpg.Connection, statement: str) -> list[str]:
    warnings: list[str] = []

    def note(_: object, message: asyncpg.PostgresLogMessage) -> None:
        warnings.append(str(message.message))

    connection.add_log_listener(note)
    await connection.execute(statement)
    connection.remove_log_listener(note)
    return warnings


async def test_an_event_trigger_that_fails_all_ddl_does_not_stop_the_log_from_being_trimmed(
    database: str, connection: asyncpg.Connection
) -> None:
    await connection.execute(
        """
        CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE 'no DDL today'; END $$;
        CREATE EVENT TRIGGER refuse ON ddl_command_start EXECUTE FUNCTION refuse();
        CREATE EVENT TRIGGER refuse_too ON ddl_command_end EXECUTE FUNCTION refuse();
        """
    )
    with pytest.raises(asyncpg.RaiseError, match="no DDL today"):
        await connection.execute("CREATE TABLE t (id int)")
    async with reading(database) as log:
        for number in range(5):
            await insert(connection, str(number))
            await log.tick()

            assert await trim(connection) == 1
    assert await connection.fetchval("SELECT number FROM brain.current_block") == 5
    assert await connection.fetchval("SELECT count(*) FROM brain.events") == 0


async def test_a_slot_that_cannot_be_emptied_is_reported_and_the_others_are(
    database: str, connection: asyncpg.Connection
) -> None:
    """As where somebody has changed the owner of its table."""
    name = await connection.fetchval("SELECT current_database()")
    role = f"node_{name}"
    await connection.execute(f"CREATE ROLE {role} IN ROLE brain_owner")
    try:
        async with reading(database) as log:
            for number in range(3):
                await insert(connection, str(number))
                await log.tick()
                await connection.execute("SELECT brain.rotate_slot('0')")
        await connection.execute("ALTER TABLE brain.events_1 OWNER TO CURRENT_USER")
        await connection.execute("GRANT SELECT ON brain.events_1 TO brain_owner")
        await connection.execute(f"SET ROLE {role}")
        warnings = await warnings_of(connection, "SELECT brain.trim('0 s')")
        await connection.execute("RESET ROLE")
        left = await connection.fetch("SELECT DISTINCT tableoid::regclass::text FROM brain.events")
        assert [row[0] for row in left] == ["brain.events_1"]
        assert warnings == [
            "brain.events_1 cannot be emptied: permission denied for table events_1"
        ]
    finally:
        await connection.execute(f"RESET ROLE; DROP OWNED BY {role}; DROP ROLE {role}")


@pytest.mark.parametrize(
    ("harm", "warning", "emptied"),
    [
        (
            "ALTER TABLE brain.current_block ADD CHECK (number < 0) NOT VALID",
            'writers cannot move to the next slot of the log: new row for relation "current_block"',
            1,
        ),
        (
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE 'not today'; END $$;"
            "CREATE TRIGGER refuse BEFORE DELETE ON brain.ticks EXECUTE FUNCTION refuse()",
            "old ticks cannot be removed from the log: not today",
            0,
        ),
        (
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE 'not today'; END $$;"
            "CREATE TRIGGER refuse BEFORE TRUNCATE ON brain.events_0 EXECUTE FUNCTION refuse()",
            "brain.events_0 cannot be emptied: not today",
            0,
        ),
    ],
    ids=["rotation", "ticks", "slot"],
)
async def test_a_step_of_trimming_that_fails_gives_a_warning(
    database: str, connection: asyncpg.Connection, harm: str, warning: str, emptied: int
) -> None:
    async with reading(database) as log:
        start = await log.tick()
        await insert(connection, "a")
        await log.tick()
        await connection.execute(harm)

        (found,) = await warnings_of(connection, "SELECT brain.trim('0 s')")

        assert found.startswith(warning)
        left = "SELECT count(*) FROM brain.events WHERE channel = 'tasks'"
        assert await connection.fetchval(left) == 1 - emptied
        if "ticks" in warning:
            assert keys(await events_after(log, start)) == [["a"]]


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
                read += [parsed(event.data)["progress"] for event in batch.events]
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
