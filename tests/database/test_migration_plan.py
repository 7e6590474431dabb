"""The plan of a migration says what it would do, and the locks that it names are those it takes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from brain.cli.migration_plan import plan_text
from brain.database.connection import connected
from brain.database.migration_plan import (
    NODES_GO_ON,
    NODES_STOP,
    NOTHING_TO_DO,
    Lock,
    Plan,
    plan_migration,
)
from brain.database.migrations import migrate
from brain.database.revisions import Revision
from brain.database.schema_files import Schema, Script, Step, core_schema
from brain.errors import RightsMissing, SchemaTooNew
from tests.database.catalog import catalog, differences
from tests.end_to_end.other_versions import UPGRADE
from tests.postgres import as_role, new_database, ordinary_role
from tests.schemas import every_schema

pytestmark = pytest.mark.postgres_versions

# Those that neither readers nor writers of rows wait for are not worth a line.
HELD = """
    SELECT l.relation::regclass::text AS relation,
           upper(regexp_replace(replace(l.mode, 'Lock', ''), '(?<=[a-z])(?=[A-Z])', ' ', 'g'))
               AS mode
      FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
     WHERE l.pid = pg_backend_pid() AND c.relnamespace <> 'pg_catalog'::regnamespace
       AND l.mode NOT IN ('AccessShareLock', 'RowShareLock', 'RowExclusiveLock')
"""


@pytest.fixture
async def empty(postgres: str) -> AsyncIterator[str]:
    """The URL of an empty database."""
    async with new_database(postgres) as url:
        yield url


def release(folder: Path, number: int, *, serves: int = 1, locks: str = "") -> Schema:
    """Return the core's schema with changed files and an upgrade."""
    current = core_schema().current()
    for name in ("schema", "upgrades"):
        (folder / name).mkdir(parents=True)
    for script in current.scripts:
        (folder / "schema" / script.name).write_text(script.sql)
    (folder / "schema" / "99_changed.sql").write_text("-- A change.\nSELECT 1")
    (folder / "upgrades" / "0001_more.sql").write_text(f"-- More.\n{locks}SELECT 1")
    revisions = [Revision(each, f"Brain {each}.0", 1) for each in range(1, number)]
    return Schema("brain", folder, (*revisions, Revision(number, f"Brain {number}.0", serves)))


async def held_locks(connection: asyncpg.Connection, step: Step) -> set[str]:
    """Apply a step, return the locks that it holds at its end, and take it back."""
    transaction = connection.transaction()
    await transaction.start()
    for script in step.scripts:
        await connection.execute(script.sql)
    rows = await connection.fetch(HELD)
    await transaction.rollback()
    return {f"{row['relation']} {row['mode']}" for row in rows}


@pytest.mark.parametrize("schema", every_schema(), ids=lambda schema: schema.name)
async def test_files_that_are_applied_again_take_the_locks_that_they_declare(
    database: str, schema: Schema
) -> None:
    step = schema.current()
    async with connected(database) as connection:
        assert await held_locks(connection, step) == set(step.locks or ())


async def test_an_upgrade_takes_the_locks_that_it_declares(database: str) -> None:
    step = Step("brain", 1, "0001_note", (Script("0001_note.sql", UPGRADE),))
    async with connected(database) as connection:
        assert await held_locks(connection, step) == set(step.locks or ())


def test_every_upgrade_of_brain_declares_its_locks() -> None:
    upgrades = [step for schema in every_schema() for step in schema.upgrades()]

    assert [step for step in upgrades if step.locks is None] == []


async def test_a_plan_changes_nothing(database: str, tmp_path: Path) -> None:
    async with connected(database) as connection:
        before = await catalog(connection)
        await plan_migration(database, [release(tmp_path, 2)])

        assert differences(before, await catalog(connection)) == set()


async def test_a_database_that_is_up_to_date_has_nothing_to_do(database: str) -> None:
    plan = await plan_migration(database, every_schema())

    assert (plan.steps, plan.exit_status) == ([], NOTHING_TO_DO)
    assert plan_text(plan, "there").endswith("\nnothing to apply")


async def test_the_plan_of_a_release_that_serves_the_present_one(
    core_database: str, tmp_path: Path
) -> None:
    schema = release(tmp_path, 2, locks="-- Locks: brain.events ACCESS EXCLUSIVE\n")

    plan = await plan_migration(core_database, [schema])

    upgrade, files = plan.steps
    assert (upgrade.name, upgrade.kind) == ("brain 0001_more", "upgrade")
    assert upgrade.locks == [Lock("brain.events", "ACCESS EXCLUSIVE")]
    assert (files.name, files.kind) == ("brain", "files")
    assert Lock("brain.watched", "SHARE ROW EXCLUSIVE") in (files.locks or ())
    assert (plan.present_revision, plan.revision) == (1, 2)
    assert plan.nodes_go_on and plan.exit_status == NODES_GO_ON
    text = plan_text(plan, "there")
    assert "locks brain.events (ACCESS EXCLUSIVE): who reads or writes it waits" in text
    assert "go on serving, meanwhile and afterwards: the new schema serves\nBrain 1.0" in text


async def test_the_plan_of_a_release_that_does_not_serve_the_present_one(
    core_database: str, tmp_path: Path
) -> None:
    connection = await asyncpg.connect(core_database)
    await connection.execute(
        "INSERT INTO brain.nodes (id, name, clients, seen_at)"
        " VALUES (gen_random_uuid(), 'a node', 0, clock_timestamp() + interval '4 s')"
    )
    await connection.close()

    plan = await plan_migration(core_database, [release(tmp_path, 3, serves=2)])

    assert (plan.serving_nodes, plan.serves_since) == (1, "Brain 2.0")
    assert not plan.nodes_go_on and plan.exit_status == NODES_STOP
    text = plan_text(plan, "there")
    assert "processes that serve it now: 1\n" in text
    assert "do NOT go on serving: the new schema serves Brain 2.0 and\nnewer" in text
    assert "1. stop all nodes" in text


async def test_an_upgrade_without_a_declaration_is_to_be_read(
    core_database: str, tmp_path: Path
) -> None:
    plan = await plan_migration(core_database, [release(tmp_path, 2)])

    assert plan.steps[0].locks is None
    assert "locks: not declared; read upgrades/0001_more.sql" in plan_text(plan, "there")


async def test_a_fresh_database_has_no_locks_but_on_tables_that_a_system_will_watch(
    empty: str,
) -> None:
    connection = await asyncpg.connect(empty)
    await connection.execute("CREATE TABLE public.tasks (id text PRIMARY KEY)")
    await connection.close()

    plan = await plan_migration(empty, every_schema())

    locks = {step.name: step.locks for step in plan.steps}
    assert locks.pop("tasks") == [Lock("public.tasks", "SHARE ROW EXCLUSIVE")]
    assert set(map(len, (each or () for each in locks.values()))) == {0}
    assert (plan.present_version, plan.exit_status) == (None, NODES_GO_ON)
    assert "No node serves this database yet." in plan_text(plan, "there")


async def test_tables_with_a_problem_are_applied_again_and_nothing_to_do(
    core_database: str,
) -> None:
    connection = await asyncpg.connect(core_database)
    await connection.execute("CREATE TABLE public.tasks (id text)")
    await connection.close()
    await migrate(core_database, every_schema())

    plan = await plan_migration(core_database, every_schema())

    assert (plan.applied_again, plan.exit_status) == (["tasks"], NOTHING_TO_DO)
    assert "shows: schema tasks\n" in plan_text(plan, "there")


async def test_a_newer_schema_is_part_of_the_plan_if_it_serves_this_brain(
    core_database: str, tmp_path: Path
) -> None:
    await migrate(core_database, [release(tmp_path / "two", 2)])

    plan: Plan = await plan_migration(core_database, every_schema())

    assert [step.name for step in plan.steps] == [schema.name for schema in every_schema()[1:]]
    assert "schema brain was migrated by" in plan_text(plan, "there")


async def test_a_plan_refuses_what_a_migration_refuses(
    empty: str, core_database: str, postgres: str, tmp_path: Path
) -> None:
    async with ordinary_role(postgres, "NOCREATEROLE") as (role, _):
        with pytest.raises(RightsMissing, match="an administrator can allow it with"):
            await plan_migration(as_role(empty, role), every_schema())
    await migrate(core_database, [release(tmp_path, 3, serves=2)])
    with pytest.raises(SchemaTooNew):
        await plan_migration(core_database, every_schema())
