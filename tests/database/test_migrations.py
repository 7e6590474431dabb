"""Migrations: schemas are applied to a database, or refused with a reason."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

import brain
from brain.database.migrations import migrate, require_current, status
from brain.database.schema_files import Schema, core_schema
from brain.errors import (
    MigrationChanged,
    MigrationError,
    MigrationFailed,
    MigrationsPending,
    MigrationUnknown,
    MigrationUnsupported,
    RightsMissing,
)
from tests.postgres import as_role, new_database, ordinary_role
from tests.schemas import every_schema
from tests.tasks import insert

pytestmark = pytest.mark.postgres_versions

RECORD = "SELECT schema, number, name FROM brain.schema_versions ORDER BY schema, number"


@pytest.fixture
async def empty(postgres: str) -> AsyncIterator[str]:
    """The URL of an empty database."""
    async with new_database(postgres) as url:
        yield url


@pytest.fixture
def toy(tmp_path: Path) -> Schema:
    """A schema of two files and one upgrade."""
    for name, sql in {
        "schema/01_one.sql": "CREATE TABLE IF NOT EXISTS public.runs (n int)",
        "schema/02_two.sql": "INSERT INTO public.runs VALUES (1)",
        "upgrades/0001_first.sql": "CREATE TABLE public.upgraded ()",
    }.items():
        write(tmp_path / name, sql)
    return Schema("toy", tmp_path)


def write(file: Path, sql: str) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(sql)


async def fetch_value(url: str, query: str) -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


async def runs(url: str) -> object:
    """Return how often the files of the toy schema were applied."""
    return await fetch_value(url, "SELECT count(*) FROM runs")


async def test_an_empty_database_is_brought_up_to_date_once(empty: str) -> None:
    names = [schema.name for schema in every_schema()]

    assert [str(step) for step in await migrate(empty, every_schema())] == names
    assert await migrate(empty, every_schema()) == []
    assert [str(step) for step in (await status(empty, every_schema())).applied] == names
    await require_current(empty, every_schema())


async def test_a_system_that_is_switched_on_later_brings_its_schema(core_database: str) -> None:
    with pytest.raises(MigrationsPending, match="lacks tasks, agents, channels, cloud_agents"):
        await require_current(core_database, every_schema())

    applied = await migrate(core_database, every_schema())

    assert [step.schema for step in applied] == [schema.name for schema in every_schema()[1:]]


async def test_of_many_processes_that_start_together_one_applies_each_schema(empty: str) -> None:
    applied = await asyncio.gather(*(migrate(empty, every_schema()) for _ in range(8)))

    assert sorted(len(steps) for steps in applied) == [0] * 7 + [len(every_schema())]


async def test_asking_for_the_status_changes_nothing(empty: str) -> None:
    assert [step.schema for step in (await status(empty, every_schema())).pending] == [
        schema.name for schema in every_schema()
    ]

    assert await fetch_value(empty, "SELECT to_regnamespace('brain') IS NULL")


async def test_a_fresh_install_contains_the_upgrades_without_running_them(
    empty: str, toy: Schema
) -> None:
    assert [str(step) for step in await migrate(empty, [toy])] == ["toy"]

    connection = await asyncpg.connect(empty)
    assert [tuple(row) for row in await connection.fetch(RECORD)] == [
        ("toy", 0, "schema"),
        ("toy", 1, "0001_first"),
    ]
    assert await connection.fetchval("SELECT to_regclass('upgraded') IS NULL")
    await connection.close()


async def test_an_upgrade_is_applied_once_and_then_the_files_again(empty: str, toy: Schema) -> None:
    await migrate(empty, [toy])
    write(toy.folder / "upgrades/0002_second.sql", "CREATE TABLE public.upgraded ()")

    pending = (await status(empty, [toy])).pending
    assert [str(step) for step in pending] == ["toy 0002_second", "toy"]
    assert await migrate(empty, [toy]) == list(pending)

    assert await fetch_value(empty, "SELECT to_regclass('upgraded') IS NOT NULL")
    assert await runs(empty) == 2
    assert await migrate(empty, [toy]) == []


async def test_files_that_have_changed_are_applied_again(empty: str, toy: Schema) -> None:
    await migrate(empty, [toy])
    write(toy.folder / "schema/03_three.sql", "CREATE TABLE public.three ()")

    assert [str(step) for step in await migrate(empty, [toy])] == ["toy"]

    assert await fetch_value(empty, "SELECT to_regclass('three') IS NOT NULL")
    assert await runs(empty) == 2


async def test_files_that_were_not_applied_after_an_upgrade_are_pending(
    empty: str, toy: Schema
) -> None:
    await migrate(empty, [toy])
    write(toy.folder / "upgrades/0002_second.sql", "CREATE TABLE public.three ()")
    file = toy.folder / "schema/02_two.sql"
    sql = file.read_text()
    write(file, "SELECT 1/0")

    with pytest.raises(MigrationFailed, match=r"schema toy, 02_two\.sql failed: division by zero"):
        await migrate(empty, [toy])
    write(file, sql)

    assert [str(step) for step in await migrate(empty, [toy])] == ["toy"]
    assert await runs(empty) == 2


async def test_of_files_that_fail_nothing_is_kept_and_other_schemas_are(
    empty: str, toy: Schema
) -> None:
    write(toy.folder / "schema/03_three.sql", "SELECT 1/0")

    with pytest.raises(
        MigrationFailed, match=r"schema toy, 03_three\.sql failed: division by zero"
    ):
        await migrate(empty, [core_schema(), toy])

    assert await fetch_value(empty, "SELECT to_regclass('runs') IS NULL")
    await require_current(empty, [core_schema()])


async def test_an_upgrade_that_was_edited_is_refused(empty: str, toy: Schema) -> None:
    await migrate(empty, [toy])
    write(toy.folder / "upgrades/0001_first.sql", "CREATE TABLE public.upgraded (); -- edited")

    with pytest.raises(MigrationChanged, match="toy 0001_first was changed after"):
        await migrate(empty, [toy])


async def test_an_upgrade_that_the_installation_lacks_is_refused(empty: str, toy: Schema) -> None:
    await migrate(empty, [toy])
    (toy.folder / "upgrades/0001_first.sql").unlink()

    with pytest.raises(MigrationUnknown, match="has toy 0001_first, which this installation lacks"):
        await migrate(empty, [toy])


async def test_files_of_a_newer_version_are_refused_if_they_differ(
    empty: str, toy: Schema, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(brain, "__version__", "0.10.0")
    await migrate(empty, [toy])
    monkeypatch.setattr(brain, "__version__", "0.9.1")

    assert await migrate(empty, [toy]) == []
    write(toy.folder / "schema/03_three.sql", "CREATE TABLE public.three ()")
    with pytest.raises(
        MigrationUnknown, match=r"by Brain 0\.10\.0, .* \(0\.9\.1\): install Brain 0\.10\.0$"
    ):
        await migrate(empty, [toy])

    monkeypatch.setattr(brain, "__version__", "0.11.0rc1")
    assert len(await migrate(empty, [toy])) == 1


async def test_the_core_is_applied_again_while_writers_have_open_transactions(
    database: str, tmp_path: Path
) -> None:
    """The migration waits for no writer, so no other session waits for the migration."""
    schema = copy_of(core_schema(), tmp_path)
    write(schema.folder / "schema/99_changed.sql", "SELECT 1")
    writer = await asyncpg.connect(database)
    async with writer.transaction():
        await insert(writer, "open")

        assert [str(step) for step in await migrate(database, [schema])] == ["brain"]

        await insert(writer, "after")
    assert (
        await fetch_value(database, "SELECT count(*) FROM brain.events WHERE channel = 'tasks'")
        == 2
    )
    await writer.close()


def copy_of(schema: Schema, folder: Path) -> Schema:
    for script in schema.current().scripts:
        write(folder / "schema" / script.name, script.sql)
    return Schema(schema.name, folder)


async def test_a_database_from_before_the_first_release_is_recognised(empty: str) -> None:
    connection = await asyncpg.connect(empty)
    await connection.execute(
        """
        CREATE SCHEMA brain;
        CREATE TABLE brain.migrations (
            number integer PRIMARY KEY, name text NOT NULL, sha256 text NOT NULL,
            applied_at timestamptz NOT NULL DEFAULT now(), milliseconds integer NOT NULL);
        INSERT INTO brain.migrations VALUES (1, '0001_log', 'e3b0c442', now(), 3);
        """
    )

    for attempt in (status, migrate, require_current):
        with pytest.raises(MigrationUnsupported) as refusal:
            await attempt(empty, every_schema())

    text = str(refusal.value)
    assert "before its first release" in text and text.count("\n") == 0
    command = text.rpartition(" -c ")[2].strip("'")
    await connection.execute(command)
    await migrate(empty, every_schema())
    await connection.close()


async def test_an_ordinary_role_gets_an_error_with_all_that_it_needs_and_then_can_migrate(
    empty: str, postgres: str
) -> None:
    async with ordinary_role(postgres, "NOCREATEROLE") as (role, _):
        within = await asyncpg.connect(empty)
        await within.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
        with pytest.raises(RightsMissing) as missing:
            await migrate(as_role(empty, role), every_schema())
        commands = str(missing.value).partition("can allow it with ")[2]
        assert commands.endswith(
            f"GRANT brain_owner, brain_reader TO {role};"
            f" GRANT CREATE ON DATABASE {urlsplit(empty).path[1:]} TO {role};"
            f" GRANT CREATE ON SCHEMA public TO {role}"
        )

        await within.execute(commands)
        await within.close()
        assert len(await migrate(as_role(empty, role), every_schema())) == len(every_schema())

        connection = await asyncpg.connect(as_role(empty, role))
        await connection.execute("INSERT INTO tasks (id) VALUES ('a')")
        assert await connection.fetchval("SELECT tick.id FROM brain.tick()") > 0
        assert (
            await connection.fetchval("SELECT count(*) FROM brain.events WHERE channel = 'tasks'")
            == 1
        )
        await connection.close()


async def test_a_role_without_rights_on_the_schema_gets_an_error_that_says_so(
    core_database: str, postgres: str
) -> None:
    async with ordinary_role(postgres) as (role, _):
        with pytest.raises(RightsMissing, match="GRANT brain_owner, brain_reader TO"):
            await migrate(as_role(core_database, role), [core_schema()])


def test_upgrades_count_from_one_without_a_gap(toy: Schema) -> None:
    write(toy.folder / "upgrades/0003_three.sql", "SELECT 3")

    with pytest.raises(MigrationError, match=r"\[1, 3\]"):
        toy.upgrades()


def test_an_upgrade_with_another_name_is_refused(toy: Schema) -> None:
    write(toy.folder / "upgrades/first.sql", "SELECT 1")

    with pytest.raises(MigrationError, match=r"NNNN_name\.sql"):
        toy.upgrades()


def test_a_folder_without_a_schema_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MigrationError, match=r"neither schema/\*\.sql nor schema\.sql"):
        Schema("none", tmp_path).current()


def test_every_file_opens_with_a_sentence() -> None:
    scripts = [script for schema in every_schema() for script in schema.current().scripts]

    assert all(script.sql.startswith("-- ") for script in scripts)


def test_every_function_is_written_once_and_revokes_its_rights() -> None:
    sql = "\n".join(script.sql for schema in every_schema() for script in schema.current().scripts)
    created = [
        line.partition("brain.")[2].partition("(")[0]
        for line in sql.splitlines()
        if line.startswith("CREATE OR REPLACE FUNCTION brain.")
    ]
    created.remove("append")  # in the function that generates it

    assert sorted(set(created)) == sorted(created)
    revoked = [f"\nREVOKE ALL ON FUNCTION brain.{name} FROM PUBLIC;" for name in created]
    assert [statement for statement in revoked if statement not in sql] == []
    assert "CREATE FUNCTION" not in sql.replace("CREATE FUNCTION pg_temp.", "")
    assert "DEFAULT PRIVILEGES" not in sql
