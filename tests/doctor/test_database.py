from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from brain.database.migrations import migrate
from brain.doctor import database, disk, schema
from brain.doctor.finding import Finding
from brain.settings import Settings
from brain.system import installed_systems, schemas_of, select_systems
from tests.doctor.examining import found
from tests.end_to_end.brain import PATIENCE_SECONDS
from tests.pgbouncer import pgbouncer_to
from tests.postgres import as_role, named, ordinary_role
from tests.proxy import proxy_to


async def test_a_database_that_answers_is_reachable_and_of_a_known_version(
    core_database: str,
) -> None:
    reachable = await found(database.reachable, database_url=core_database)
    version = await found(database.version, database_url=core_database)

    assert (reachable.verdict, version.verdict) == ("ok", "ok")
    assert reachable.facts["milliseconds"] > 0
    assert version.facts["major"] >= 14


async def test_without_a_database_it_says_what_to_pass() -> None:
    finding = await found(database.reachable)

    assert finding.verdict == "not checked"
    assert "--database-url" in str(finding.way_out)


UNREACHABLE = [
    ("postgresql://u:hidden@127.0.0.1:1/shop", "nothing listens there", "start PostgreSQL"),
    ("postgresql://u:hidden@no.such.invalid/shop", "cannot connect", "does not resolve"),
    ("http://u:hidden@127.0.0.1/shop", "must read", "correct --database-url"),
]


@pytest.mark.parametrize(("url", "text", "way_out"), UNREACHABLE)
async def test_a_database_that_is_down_is_named_with_the_way_out(
    url: str, text: str, way_out: str
) -> None:
    finding = await found(database.reachable, database_url=url)

    assert finding.verdict == "failure"
    assert text in finding.text
    assert way_out in str(finding.way_out)
    assert "hidden" not in f"{finding}"


async def test_a_database_that_does_not_exist_is_to_be_created(postgres: str) -> None:
    finding = await found(database.reachable, database_url=named(postgres, "nowhere"))

    assert finding.verdict == "failure"
    assert "createdb" in str(finding.way_out)


async def test_a_login_that_is_refused_is_named(postgres: str) -> None:
    finding = await found(database.reachable, database_url=as_role(postgres, "nobody_known"))

    assert finding.verdict == "failure"
    assert "user and password" in str(finding.way_out)


async def test_a_database_that_accepts_and_does_not_answer_is_a_failure(
    core_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brain.doctor.examination.CONNECT_SECONDS", 0.5)
    async with proxy_to(core_database) as (url, proxy):
        proxy.swallow()
        finding = await found(database.reachable, database_url=url)

    assert finding.verdict == "failure"
    assert "did not answer" in finding.text


async def test_after_an_unreachable_database_the_others_are_not_checked() -> None:
    url = "postgresql://127.0.0.1:1/shop"
    finding = await found(database.version, database.reachable, database_url=url)

    assert finding.verdict == "not checked"
    assert finding.way_out == "see database.reachable"


async def test_a_pooler_in_transaction_mode_is_named(core_database: str) -> None:
    with pgbouncer_to(core_database, "transaction") as url:
        finding = await found(database.pooler, database.reachable, database_url=url)

    assert finding.verdict == "failure"
    assert "transaction mode" in finding.text
    assert "pool_mode = session" in str(finding.way_out)


async def test_a_pooler_in_session_mode_is_no_problem(core_database: str) -> None:
    with pgbouncer_to(core_database, "session") as url:
        finding = await found(database.pooler, database.reachable, database_url=url)

    assert finding.verdict == "ok"


async def test_a_superuser_is_a_warning(core_database: str) -> None:
    finding = await found(database.rights, database_url=core_database)

    assert finding.verdict == "warning"
    assert "docs/operating.md" in str(finding.way_out)


async def test_the_rights_that_a_role_lacks_are_the_way_out(
    postgres: str, core_database: str
) -> None:
    async with ordinary_role(postgres) as (role, admin):
        url = as_role(core_database, role)
        lacking = await found(database.rights, database_url=url)
        await admin.execute(f"GRANT brain_owner, brain_reader TO {role}")
        complete = await found(database.rights, database_url=url)

    assert lacking.verdict == "failure"
    assert f"GRANT brain_owner, brain_reader TO {role}" in str(lacking.way_out)
    assert complete.verdict == "ok"


async def test_the_connections_of_the_server_are_counted(core_database: str) -> None:
    finding = await found(database.connections, database_url=core_database)

    assert finding.verdict in ("ok", "warning")
    assert 0 < finding.facts["used"] < finding.facts["most"]


async def test_an_ordinary_role_counts_the_connections_of_all_roles(
    postgres: str, core_database: str
) -> None:
    async with ordinary_role(postgres) as (role, _):
        others = [await asyncpg.connect(core_database) for _ in range(3)]
        finding = await found(database.connections, database_url=as_role(core_database, role))
        for other in others:
            await other.close()

    # Those of the administrator and of the three are of another role.
    assert finding.facts["used"] >= 5


async def test_a_commit_is_measured_without_a_trace_in_a_table(
    core_connection: asyncpg.Connection, core_database: str
) -> None:
    finding = await found(disk.disk, database_url=core_database)

    assert finding.verdict in ("ok", "warning", "failure")
    assert finding.facts["median_milliseconds"] > 0
    assert await core_connection.fetchval("SELECT count(*) FROM brain.events") == 0


SLOWNESS = [
    ([0.8, 1.0, 9.0], "ok"),
    ([40.0, 60.0, 61.0], "warning"),
    ([900.0, 400.0, 500.0], "failure"),
]


@pytest.mark.parametrize(("milliseconds", "verdict"), SLOWNESS)
def test_a_slow_disk_is_named(milliseconds: list[float], verdict: str) -> None:
    finding = disk.of_commits(milliseconds, ["3 sessions wait for WALSync"])

    assert finding.verdict == verdict
    if verdict != "ok":
        assert "disk" in finding.text
        assert "iostat" in str(finding.way_out)
        assert finding.details == ["3 sessions wait for WALSync"]


async def test_what_slows_a_commit_down_is_said_to_be_unseen_by_an_ordinary_role(
    postgres: str, core_database: str
) -> None:
    async with ordinary_role(postgres) as (role, admin):
        connection = await asyncpg.connect(as_role(core_database, role))
        lines = await disk.waiting(connection)
        await admin.execute(f"GRANT pg_read_all_stats TO {role}")
        granted = await disk.waiting(connection)
        await connection.close()

    assert f"GRANT pg_read_all_stats TO {role}" in lines[-1]
    assert not any("GRANT" in line for line in granted)


def test_the_commits_that_were_measured_are_counted() -> None:
    assert "the longest of 1 2e+03 ms" in disk.of_commits([2000.0], []).text


async def test_a_commit_that_fails_leaves_the_connection_to_the_other_checks(
    core_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "WRITE", "SELECT 1 / 0")
    after = await found(database.connections, disk.disk, database_url=core_database)

    assert after.verdict in ("ok", "warning")


@asynccontextmanager
async def absent_standby(server: str) -> AsyncIterator[None]:
    """Have every commit wait for a standby that does not exist, as long as the context lasts."""
    admin = await asyncpg.connect(server)
    try:
        await admin.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        await admin.execute("SELECT pg_reload_conf()")
        await becomes_true(admin, "SELECT current_setting('synchronous_standby_names') <> ''")
        yield
    finally:
        await admin.execute("ALTER SYSTEM RESET synchronous_standby_names")
        await admin.execute("SELECT pg_reload_conf()")
        await becomes_true(admin, "SELECT current_setting('synchronous_standby_names') = ''")
        await admin.close()


async def becomes_true(connection: asyncpg.Connection, query: str) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await connection.fetchval(query):
            await asyncio.sleep(0.02)


async def test_a_commit_that_waits_for_a_standby_that_is_not_there_is_named(
    postgres: str, core_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "COMMIT_SECONDS", 0.5)
    async with absent_standby(postgres):
        finding = await found(disk.disk, database_url=core_database)

    assert finding.verdict == "failure"
    assert "synchronous_standby_names" in str(finding.way_out)


async def test_the_space_of_a_disk_here_is_seen_and_elsewhere_is_not(core_database: str) -> None:
    here = await found(disk.disk_space, database_url=core_database)

    assert here.verdict in ("ok", "warning")
    assert here.facts["total_bytes"] > 0


HOSTS = [
    ("postgresql:///shop", []),
    ("postgresql://u:p@localhost:5432/shop", ["localhost"]),
    ("postgresql://one.example.org,[::1]:5433/shop", ["one.example.org", "::1"]),
    ("postgresql:///shop?host=db.example.org", ["db.example.org"]),
    ("postgresql://%2Frun%2Fpostgresql/shop", ["/run/postgresql"]),
    ("postgresql://localhost/shop?host=db.example.org", ["localhost"]),
    ("postgresql:///shop?host=/run/postgresql", ["/run/postgresql"]),
]


@pytest.mark.parametrize(("url", "hosts"), HOSTS)
def test_the_hosts_of_a_url_are_those_before_its_path_and_in_its_query(
    url: str, hosts: list[str]
) -> None:
    assert disk.hosts_of(url) == hosts


async def test_the_disk_of_a_host_in_the_query_is_that_of_another_machine() -> None:
    url = "postgresql:///shop?host=localhost,db.example.org"
    finding = await found(disk.disk_space, database_url=url)

    assert finding.verdict == "not checked"
    assert "another machine" in finding.text


async def migrations_of(url: str) -> Finding:
    settings = Settings(database_url=url)
    return await found(schema.applied_migrations, settings=settings, database_url=url)


async def test_a_database_without_the_schema_is_to_be_migrated(empty: str) -> None:
    finding = await migrations_of(empty)

    assert finding.verdict == "failure"
    assert "brain migrate" in str(finding.way_out)


CHANGES = [
    ("UPDATE brain.schema_versions SET sha256 = 'x'", "lacks brain", "brain migrate"),
    (
        "UPDATE brain.schema_versions SET sha256 = 'x', brain_version = '999.0'",
        "ahead of this Brain",
        "install the version",
    ),
    (
        "DROP TABLE brain.schema_versions;"
        "CREATE TABLE brain.migrations (number int PRIMARY KEY, name text, sha256 text)",
        "before its first release",
        "DROP SCHEMA brain CASCADE",
    ),
    ("DROP FUNCTION brain.flush", "function brain.flush is missing", "restore it"),
]


@pytest.mark.parametrize(("change", "text", "way_out"), CHANGES)
async def test_a_schema_that_is_not_this_versions_is_named(
    core_connection: asyncpg.Connection, core_database: str, change: str, text: str, way_out: str
) -> None:
    before = await migrations_of(core_database)
    await core_connection.execute(change)
    after = await migrations_of(core_database)

    assert before.verdict == "ok"
    assert after.verdict == "failure"
    assert text in after.text
    assert way_out in str(after.way_out)


async def test_a_newer_schema_is_a_warning_if_it_serves_this_version(
    core_connection: asyncpg.Connection, core_database: str
) -> None:
    newer = "UPDATE brain.schema_versions SET revision = 99, serves = {}"
    await core_connection.execute(newer.format(1))
    serving = await migrations_of(core_database)
    await core_connection.execute(newer.format(99))
    refusing = await migrations_of(core_database)

    assert (serving.verdict, refusing.verdict) == ("warning", "failure")
    assert "docs/upgrading.md" in str(serving.way_out)
    assert "install Brain 0.1.0 or newer" in refusing.text


async def test_a_table_that_does_not_fit_a_system_is_named(empty: str) -> None:
    connection = await asyncpg.connect(empty)
    await connection.execute("CREATE TABLE tasks (id int PRIMARY KEY, title text)")
    await connection.close()
    await migrate(empty, schemas_of(select_systems(["cecelia"], installed_systems())))
    settings = Settings(database_url=empty, systems=("cecelia",))
    finding = await found(schema.tables, settings=settings, database_url=empty)

    assert finding.verdict == "warning"
    assert "tasks" in finding.text


async def test_the_systems_that_are_on_are_listed(database: str) -> None:
    settings = Settings(database_url=database, systems=("cecelia", "channels"))
    finding = await found(schema.tables, settings=settings, database_url=database)

    assert finding.verdict == "ok"
    assert finding.facts["on"] == ["cecelia", "channels"]
