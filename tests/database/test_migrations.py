from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from brain.database.migrations import (
    Migration,
    migrate,
    read_folder,
    require_current,
    shipped,
    status,
)
from brain.errors import (
    MigrationChanged,
    MigrationError,
    MigrationFailed,
    MigrationsPending,
    MigrationUnknown,
    RightsMissing,
)
from brain.message.cursor import Cursor
from tests.database.log_reading import events_after, reading
from tests.postgres import as_role, new_database, ordinary_role
from tests.tasks import insert


@pytest.fixture
async def empty(postgres: str) -> AsyncIterator[str]:
    """The URL of a database that Brain has never seen."""
    async with new_database(postgres) as url:
        yield url


async def test_an_empty_database_is_brought_up_to_date_once(empty: str) -> None:
    assert await migrate(empty, shipped()) == shipped()
    assert await migrate(empty, shipped()) == []
    assert (await status(empty, shipped())).applied == tuple(shipped())
    await require_current(empty, shipped())


async def test_of_many_who_start_together_one_applies_each_file(empty: str) -> None:
    applied = await asyncio.gather(*(migrate(empty, shipped()) for _ in range(8)))

    assert sorted(len(migrations) for migrations in applied) == [0] * 7 + [len(shipped())]


async def test_asking_for_the_status_changes_nothing(empty: str) -> None:
    assert (await status(empty, shipped())).pending == tuple(shipped())

    connection = await asyncpg.connect(empty)
    assert await connection.fetchval("SELECT to_regnamespace('brain')") is None
    await connection.close()


async def test_a_database_that_lacks_a_migration_is_not_served(empty: str) -> None:
    await migrate(empty, shipped()[:1])

    with pytest.raises(
        MigrationsPending, match="lacks 0002_watch, 0003_tasks: run `brain migrate`"
    ):
        await require_current(empty, shipped()[:3])


async def test_what_was_logged_before_a_migration_is_read_after_it(empty: str) -> None:
    """Between 0003 and the newest, the log gained columns and writers another trigger function."""
    await migrate(empty, shipped()[:3])
    connection = await asyncpg.connect(empty)
    tick, nonce = await connection.fetchval("SELECT ARRAY[id, nonce] FROM brain.tick()")
    start = Cursor(tick, nonce)
    await insert(connection, "before")

    await migrate(empty, shipped())
    await insert(connection, "after")

    async with reading(empty) as log:
        assert [event.key for event in await events_after(log, start)] == [["before"], ["after"]]
    await connection.close()


async def test_a_file_that_was_changed_is_refused(empty: str) -> None:
    await migrate(empty, shipped())
    first, *others = shipped()

    with pytest.raises(MigrationChanged, match="0001_log was changed"):
        await migrate(empty, [replace(first, sql=first.sql + "-- edited"), *others])


async def test_a_database_of_a_newer_version_is_refused(empty: str) -> None:
    await migrate(empty, shipped())

    with pytest.raises(MigrationUnknown, match=str(shipped()[-1])):
        await migrate(empty, shipped()[:-1])


async def test_of_a_file_that_fails_nothing_is_kept_and_what_came_before_is(empty: str) -> None:
    broken = Migration(len(shipped()) + 1, "broken", "CREATE TABLE t (); SELECT 1/0")

    with pytest.raises(MigrationFailed, match="broken failed: division by zero"):
        await migrate(empty, [*shipped(), broken])

    connection = await asyncpg.connect(empty)
    assert await connection.fetchval("SELECT to_regclass('t')") is None
    await connection.close()
    await require_current(empty, shipped())


async def test_a_table_tasks_that_fits_is_kept_and_watched(empty: str) -> None:
    connection = await asyncpg.connect(empty)
    await connection.execute(
        """
        CREATE TABLE tasks (
            id uuid PRIMARY KEY, title text, agent text, status text, progress int, payload jsonb,
            started_at timestamptz, completed_at timestamptz, updated_at timestamptz, error text,
            of_their_own text);
        INSERT INTO tasks (id) VALUES (gen_random_uuid());
        """
    )

    await migrate(empty, shipped())

    await connection.execute("UPDATE tasks SET status = 'running'")
    assert await connection.fetchval("SELECT data ->> 'status' FROM brain.events") == "running"
    await connection.close()


async def test_a_table_tasks_that_does_not_fit_is_refused_with_what_it_lacks(empty: str) -> None:
    connection = await asyncpg.connect(empty)
    await connection.execute("CREATE TABLE tasks (id int PRIMARY KEY, status text)")
    await connection.close()

    with pytest.raises(MigrationFailed, match="lacks: title, agent, progress, payload, started_at"):
        await migrate(empty, shipped())


async def test_an_ordinary_role_is_told_what_it_needs_and_then_can_migrate(
    empty: str, postgres: str
) -> None:
    async with ordinary_role(postgres, "NOCREATEROLE") as (role, admin):
        with pytest.raises(RightsMissing, match="GRANT CREATE ON DATABASE"):
            await migrate(as_role(empty, role), shipped())

        await admin.execute(f"ALTER DATABASE {urlsplit(empty).path[1:]} OWNER TO {role}")
        with pytest.raises(RightsMissing, match="GRANT brain_owner TO"):
            await migrate(as_role(empty, role), shipped())

        await admin.execute(f"GRANT brain_owner TO {role}")
        assert await migrate(as_role(empty, role), shipped()) == shipped()

        connection = await asyncpg.connect(as_role(empty, role))
        await connection.execute("INSERT INTO tasks (id) VALUES ('a')")
        assert await connection.fetchval("SELECT tick.id FROM brain.tick()") > 0
        assert await connection.fetchval("SELECT count(*) FROM brain.events") == 1
        await connection.close()


def test_numbers_count_from_one_without_a_gap(tmp_path: Path) -> None:
    (tmp_path / "0001_one.sql").write_text("SELECT 1")
    (tmp_path / "0003_three.sql").write_text("SELECT 3")

    with pytest.raises(MigrationError, match=r"\[1, 3\]"):
        read_folder(tmp_path)


def test_a_file_with_another_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "first.sql").write_text("SELECT 1")

    with pytest.raises(MigrationError, match=r"NNNN_name\.sql"):
        read_folder(tmp_path)


def test_every_shipped_file_opens_with_a_sentence_on_why() -> None:
    assert all(migration.sql.startswith("-- ") for migration in shipped())
