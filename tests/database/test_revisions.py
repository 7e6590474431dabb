"""An older Brain goes on with a newer schema that serves it, and never applies its own over it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import asyncpg
import pytest

import brain
from brain.database import migrations
from brain.database.connection import opened_pool
from brain.database.migrations import migrate, require_current, status
from brain.database.preparation import prepare_database
from brain.database.revisions import REVISIONS, Revision
from brain.database.schema_files import Schema, core_schema
from brain.database.schema_follower import follow_schema
from brain.errors import (
    MigrationFailed,
    MigrationsPending,
    MigrationUnknown,
    NodesServing,
    SchemaTooNew,
)
from brain.problems import Problems
from brain.settings import Settings
from release.schema import schema_sha256
from tests.database.locks import locked
from tests.postgres import new_database

pytestmark = pytest.mark.postgres_versions

BODY = "SELECT toy.answer()"
PATIENCE_SECONDS = 30.0

ReleaseMaker = Callable[..., Schema]


@pytest.fixture
async def empty(postgres: str) -> AsyncIterator[str]:
    """The URL of an empty database."""
    async with new_database(postgres) as url:
        yield url


@pytest.fixture
def release(tmp_path: Path) -> ReleaseMaker:
    """Make a release of a schema: its function answers with the number of its revision."""

    def make(number: int, *, serves: int = 1, upgrades: int = 0) -> Schema:
        folder = tmp_path / f"release-{number}-{serves}"
        (folder / "upgrades").mkdir(parents=True, exist_ok=True)
        (folder / "schema.sql").write_text(
            "-- A function.\nCREATE SCHEMA IF NOT EXISTS toy; CREATE OR REPLACE FUNCTION"
            f" toy.answer() RETURNS int LANGUAGE sql AS 'SELECT {number}';"
        )
        for upgrade in range(1, upgrades + 1):
            file = folder / "upgrades" / f"{upgrade:04}_more.sql"
            file.write_text(f"CREATE TABLE toy.more_{upgrade} ()")
        revisions = [Revision(each, f"toy {each}.0", 1) for each in range(1, number)]
        revisions.append(Revision(number, f"toy {number}.0", serves))
        return Schema("toy", folder, tuple(revisions))

    return make


async def answer(url: str) -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(BODY)
    finally:
        await connection.close()


async def test_an_older_release_applies_nothing_to_a_newer_schema_that_serves_it(
    empty: str, release: ReleaseMaker
) -> None:
    older, newer = release(1), release(2)
    await migrate(empty, [older])
    await migrate(empty, [newer])

    for _ in range(2):  # they start in turn
        assert await migrate(empty, [older]) == []
        assert await migrate(empty, [newer]) == []
        assert await answer(empty) == 2


async def prepared(url: str, schema: Schema) -> None:
    """Do what a start does."""
    await prepare_database(url, Settings(), [core_schema(), schema])


async def test_an_older_release_starts_on_a_newer_schema_that_serves_it(
    core_database: str, release: ReleaseMaker
) -> None:
    await migrate(core_database, [release(2)])

    await prepared(core_database, release(1))
    await prepare_database(core_database, Settings(migrate=False), [release(1)])

    assert await answer(core_database) == 2


async def test_a_schema_that_no_longer_serves_a_release_refuses_it(
    empty: str, release: ReleaseMaker
) -> None:
    await migrate(empty, [release(3, serves=2)])

    for attempt in (migrate, status, require_current):
        with pytest.raises(
            SchemaTooNew, match=r"toy \(revision 3\) no longer serves .* install toy 2\.0 or newer$"
        ):
            await attempt(empty, [release(1)])
    assert await answer(empty) == 3
    assert await migrate(empty, [release(2)]) == []


async def test_of_two_builds_with_one_revision_the_older_applies_nothing_over_the_newer(
    empty: str, release: ReleaseMaker, caplog: pytest.LogCaptureFixture
) -> None:
    older, newer = release(1), release(1, serves=0)  # other files
    newer_file = newer.folder / "schema.sql"
    newer_file.write_text(newer_file.read_text().replace("SELECT 1", "SELECT 10"))
    await migrate(empty, [older])
    assert [str(step) for step in await migrate(empty, [newer])] == ["toy"]

    for _ in range(2):  # they start in turn
        assert await migrate(empty, [older]) == []
        await require_current(empty, [older])
        assert await migrate(empty, [newer]) == []
        assert await answer(empty) == 10
    assert "`brain migrate --replay`" in caplog.text

    assert [str(step) for step in await migrate(empty, [older], replays=True)] == ["toy"]
    assert await answer(empty) == 1
    assert await migrate(empty, [newer]) == []
    newer_file.write_text(newer_file.read_text().replace("SELECT 10", "SELECT 11"))
    assert [str(step) for step in await migrate(empty, [newer])] == ["toy"]
    assert await answer(empty) == 11


async def test_files_that_a_newer_brain_has_replaced_are_no_reason_to_refuse_an_older_one(
    core_database: str, release: ReleaseMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package without revisions of its own changes its files, and comes with a newer Brain."""
    older, newer = release(1), release(1, serves=0)  # other files
    file = newer.folder / "schema.sql"
    file.write_text(file.read_text().replace("SELECT 1", "SELECT 10"))
    await migrate(core_database, [older])
    now = brain.__version__
    monkeypatch.setattr(brain, "__version__", "99.0.0")
    await migrate(core_database, [newer])

    monkeypatch.setattr(brain, "__version__", now)
    await prepared(core_database, older)
    await require_current(core_database, [older])
    assert await answer(core_database) == 10

    assert [str(step) for step in await migrate(core_database, [older], replays=True)] == ["toy"]
    assert await answer(core_database) == 1

    file.write_text(file.read_text().replace("SELECT 10", "SELECT 11"))
    monkeypatch.setattr(brain, "__version__", "99.0.0")
    await migrate(core_database, [newer])
    monkeypatch.setattr(brain, "__version__", now)
    (older.folder / "schema.sql").write_text("SELECT 'never applied'")
    with pytest.raises(MigrationUnknown, match=r"by Brain 99\.0\.0, which is newer"):
        await prepared(core_database, older)


async def test_the_record_has_the_checksums_of_former_files_and_no_others(
    empty: str, release: ReleaseMaker
) -> None:
    first, second = release(1), release(2, upgrades=2)
    await migrate(empty, [first])
    await migrate(empty, [second])

    connection = await asyncpg.connect(empty)
    replaced = await connection.fetchval(
        "SELECT replaced FROM brain.schema_versions WHERE schema = 'toy' AND number = 0"
    )
    await connection.close()
    assert replaced == [first.current().sha256]


async def test_an_older_release_accepts_upgrades_that_it_does_not_have(
    empty: str, release: ReleaseMaker
) -> None:
    older, newer = release(1, upgrades=1), release(2, upgrades=2)
    await migrate(empty, [older])
    assert [str(step) for step in await migrate(empty, [newer])] == ["toy 0002_more", "toy"]

    assert await migrate(empty, [older]) == []
    await require_current(empty, [older])
    assert await answer(empty) == 2


async def test_between_an_upgrade_and_the_files_an_older_release_applies_nothing_either(
    empty: str, release: ReleaseMaker
) -> None:
    older, newer = release(1), release(2, upgrades=1)
    await migrate(empty, [older])
    file = newer.folder / "schema.sql"
    sql = file.read_text()
    file.write_text("SELECT 1/0")
    with pytest.raises(MigrationFailed):
        await migrate(empty, [newer])

    assert await migrate(empty, [older]) == []
    assert await answer(empty) == 1
    file.write_text(sql)
    assert [str(step) for step in await migrate(empty, [newer])] == ["toy"]
    assert await answer(empty) == 2


async def test_a_table_with_a_problem_does_not_make_an_older_release_apply_its_files(
    core_database: str, release: ReleaseMaker
) -> None:
    older, newer = release(1), release(2)
    for schema in (older, newer):
        file = schema.folder / "schema.sql"
        file.write_text(
            file.read_text() + "CREATE TABLE IF NOT EXISTS public.keyless ();"
            "SELECT brain.adopt_table('toy', 'public.keyless', channel => 'toy',"
            " required => '{id}', wanted => '{}', definition => '')"
        )
    await migrate(core_database, [older])
    await migrate(core_database, [newer])

    assert await migrate(core_database, [older]) == []

    assert await answer(core_database) == 2


async def test_many_starts_of_two_releases_at_once_leave_the_newer_schema(
    empty: str, release: ReleaseMaker
) -> None:
    older, newer = release(1), release(2)

    await asyncio.gather(*(migrate(empty, [schema]) for schema in [older, newer] * 5))

    assert await answer(empty) == 2


async def test_a_running_process_warns_of_a_newer_schema_until_that_no_longer_serves_it(
    empty: str,
    release: ReleaseMaker,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(brain, "__version__", "9.8.7")
    older = release(1)
    await migrate(empty, [older])
    async with opened_pool(empty) as pool:
        following = asyncio.create_task(follow_schema(pool, empty, [older], Problems()))
        await migrate(empty, [release(2)])
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not caplog.messages:
                assert not following.done()
                await asyncio.sleep(0.05)
        await migrate(empty, [release(3, serves=2)])
        with pytest.raises(SchemaTooNew, match=r"install toy 2\.0 or newer"):
            async with asyncio.timeout(PATIENCE_SECONDS):
                await following

    assert caplog.messages == [
        "schema toy was migrated by Brain 9.8.7 to revision 2, and serves this Brain 9.8.7 "
        "(revision 1) too: nothing is applied to it"
    ]


async def test_a_running_process_reports_a_schema_that_has_become_older(
    empty: str, release: ReleaseMaker
) -> None:
    problems = Problems()
    await migrate(empty, [release(1)])
    async with opened_pool(empty) as pool:
        following = asyncio.create_task(follow_schema(pool, empty, [release(2)], problems))
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not problems.recent():
                await asyncio.sleep(0.05)
        following.cancel()
        await asyncio.wait([following])

    (problem,) = problems.recent()
    assert problem.address == "schema toy"
    assert problem.text == (
        "the database has revision 1, and this Brain needs revision 2: run `brain migrate`"
    )


async def test_a_start_does_not_migrate_the_nodes_away_that_serve_the_database(
    core_database: str, release: ReleaseMaker
) -> None:
    breaking = release(2, serves=2)
    await migrate(core_database, [release(1)])
    connection = await asyncpg.connect(core_database)
    await connection.execute(
        "INSERT INTO brain.nodes (id, name, clients, seen_at)"
        " VALUES (gen_random_uuid(), 'a node', 0, clock_timestamp() + interval '4 s')"
    )

    with pytest.raises(NodesServing, match=r"^1 processes serve .* \(toy\) would not serve them"):
        await prepared(core_database, breaking)
    assert await answer(core_database) == 1
    assert [str(step) for step in await migrate(core_database, [breaking])] == ["toy"]
    await connection.close()


async def test_a_start_migrates_where_no_node_serves_the_database(
    core_database: str, release: ReleaseMaker
) -> None:
    await migrate(core_database, [release(1)])

    await prepared(core_database, release(2, serves=2))

    assert await answer(core_database) == 2


async def test_a_step_tries_again_until_it_gets_its_lock(
    core_database: str, release: ReleaseMaker, caplog: pytest.LogCaptureFixture
) -> None:
    schema = release(1)
    (schema.folder / "schema.sql").write_text("LOCK TABLE brain.feeds")
    async with locked(core_database, "brain.feeds"):
        migrating = asyncio.create_task(migrate(core_database, [schema]))
        async with asyncio.timeout(PATIENCE_SECONDS):
            while "waited in vain for a lock" not in caplog.text:
                await asyncio.sleep(0.05)

    assert [str(step) for step in await migrating] == ["toy"]


async def test_a_step_that_gets_no_lock_fails_at_last(
    core_database: str, release: ReleaseMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrations, "LOCK_PATIENCE_SECONDS", 0.0)
    schema = release(1)
    (schema.folder / "schema.sql").write_text("LOCK TABLE brain.feeds")
    async with locked(core_database, "brain.feeds"):
        with pytest.raises(MigrationFailed, match=r"in vain for a lock: .*; end what holds it"):
            await migrate(core_database, [schema])


async def test_a_record_of_an_unreleased_brain_gets_the_columns_that_it_lacks(
    core_database: str, release: ReleaseMaker
) -> None:
    connection = await asyncpg.connect(core_database)
    await connection.execute(
        "ALTER TABLE brain.schema_versions DROP revision, DROP serves, DROP serves_since,"
        " DROP replaced"
    )

    await require_current(core_database, [core_schema()])
    await migrate(core_database, [release(2)])

    rows = await connection.fetch(
        "SELECT schema, revision, serves, serves_since FROM brain.schema_versions ORDER BY schema"
    )
    await connection.close()
    assert [tuple(row) for row in rows] == [
        ("brain", 1, 1, "Brain 0.1.0"),
        ("toy", 2, 1, "toy 1.0"),
    ]


async def test_a_newer_release_needs_its_own_schema(empty: str, release: ReleaseMaker) -> None:
    await migrate(empty, [release(1)])

    with pytest.raises(MigrationsPending, match="lacks toy: run `brain migrate`"):
        await require_current(empty, [release(2)])


def test_revisions_count_from_one_and_serve_what_is_not_newer() -> None:
    assert [each.number for each in REVISIONS] == list(range(1, len(REVISIONS) + 1))
    assert all(1 <= each.serves <= each.number for each in REVISIONS)
    assert REVISIONS == tuple(sorted(REVISIONS, key=lambda each: each.serves))


def test_files_that_were_released_with_a_revision_are_those_of_that_revision() -> None:
    """Once a release has given it a sha256, a changed file needs another revision."""
    assert REVISIONS[-1].sha256 in (None, schema_sha256())
    assert None not in [each.sha256 for each in REVISIONS[:-1]]


def test_the_changelog_names_the_revision_of_each_release_that_brought_one() -> None:
    changelog = (Path(__file__).parents[2] / "CHANGELOG.md").read_text()
    releases = changelog.split("\n## [")[1:]
    lines = {release.partition("]")[0]: release.splitlines() for release in releases}

    assert next(iter(lines)) == brain.__version__
    for each in REVISIONS:
        served = REVISIONS[each.serves - 1].since
        line = f"Schema: revision {each.number}, which serves {served} and newer."
        assert line in lines[each.since.removeprefix("Brain ")]
