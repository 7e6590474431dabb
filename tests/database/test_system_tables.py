"""Systems in a database with existing tables: they watch the tables, and alter nothing."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from brain.cli.serve import prepare
from brain.database.migrations import migrate
from brain.database.schema_files import Schema, core_schema
from brain.database.tables_of_systems import SystemTable, declared_tables, fitting_tables
from brain.errors import MigrationError
from brain.settings import Settings
from brain.system import installed_systems, schemas_of, select_systems
from brain.systems.shared_tables.schemas import TASKS
from tests.database.changes import changes
from tests.database.servers import binaries_of, run
from tests.postgres import as_role, new_database, ordinary_role
from tests.schemas import every_schema

pytestmark = pytest.mark.postgres_versions

EVERY_KIND = """
    CREATE TYPE mood AS ENUM ('good', 'bad');
    CREATE DOMAIN small AS int CHECK (VALUE < 100);
    CREATE TABLE tasks (
        id uuid PRIMARY KEY DEFAULT gen_random_uuid(), status mood NOT NULL, agent text,
        progress small, error text GENERATED ALWAYS AS (agent || '!') STORED, ours text UNIQUE);
    CREATE INDEX by_agent ON tasks (agent) WHERE status = 'bad';
    COMMENT ON TABLE tasks IS 'chores';
    CREATE TABLE messages (id int PRIMARY KEY, content text, sender int REFERENCES messages);
    CREATE TABLE agents (id int, status text, at date, PRIMARY KEY (at, id))
        PARTITION BY RANGE (at);
    CREATE TABLE agents_2026 PARTITION OF agents FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
    CREATE TABLE missions (id int, status text, name text);
    CREATE VIEW sessions AS SELECT id, status FROM tasks;
    CREATE MATERIALIZED VIEW counts AS SELECT count(*) FROM tasks;
    CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child () INHERITS (parent);
    CREATE UNLOGGED TABLE cache (key text PRIMARY KEY, value jsonb) WITH (fillfactor = 50);
    CREATE FUNCTION log_it() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
    CREATE TRIGGER mine BEFORE UPDATE ON tasks FOR EACH ROW EXECUTE FUNCTION log_it();
    CREATE TRIGGER too AFTER INSERT ON messages FOR EACH ROW EXECUTE FUNCTION log_it();
    ALTER TABLE cache ENABLE ROW LEVEL SECURITY;
    CREATE POLICY mine ON cache USING (key = current_user);
    CREATE RULE quiet AS ON DELETE TO parent DO INSTEAD NOTHING;
    CREATE SEQUENCE numbers CACHE 7;
    CREATE SCHEMA app; CREATE TABLE app.tasks (id int PRIMARY KEY, status text);
    GRANT SELECT ON tasks TO PUBLIC;
    ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC;
    INSERT INTO tasks (status, agent) VALUES ('good', 'ann');
    INSERT INTO messages VALUES (1, 'hello', 1);
    INSERT INTO agents VALUES (1, 'idle', '2026-05-01');
"""
STATUS = """
    SELECT name, problem FROM brain.system_problems ORDER BY 1
"""
WATCH_TASKS = (
    "brain watch public.tasks --channel tasks --columns "
    "id,status,agent,progress,started_at,completed_at,error"
)


@pytest.fixture
async def empty(postgres: str) -> AsyncIterator[str]:
    """The URL of an empty database."""
    async with new_database(postgres) as url:
        yield url


async def execute(url: str, statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statements)
    finally:
        await connection.close()


async def dump(url: str, *options: str) -> list[str]:
    """Return the lines of pg_dump, without the random key that newer versions print."""
    text = run(await binaries_of(url), "pg_dump", *options, "-d", url)
    return re.sub(r"^\\(un)?restrict .*$", "", text, flags=re.MULTILINE).splitlines()


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.name.startswith("brain.")]


async def problems(url: str) -> dict[str, str]:
    connection = await asyncpg.connect(url)
    try:
        return {row["name"]: row["problem"] for row in await connection.fetch(STATUS)}
    finally:
        await connection.close()


async def test_without_a_system_nothing_outside_the_schema_brain_changes(empty: str) -> None:
    await execute(empty, EVERY_KIND)
    before = await dump(empty, "-N", "brain")

    await migrate(empty, [core_schema()])

    assert await dump(empty, "-N", "brain") == before
    assert len(before) > 200


async def test_all_systems_add_triggers_to_existing_tables_and_nothing_else(empty: str) -> None:
    await execute(empty, EVERY_KIND)
    before = await dump(empty, "-t", "public.*", "-t", "app.*")
    relations = "SELECT '-t ' || oid::regclass FROM pg_class WHERE relnamespace = $1::regnamespace"
    connection = await asyncpg.connect(empty)
    existing = [
        option for (row,) in await connection.fetch(relations, "public") for option in row.split()
    ]
    await connection.close()

    await migrate(empty, every_schema())

    after = await dump(empty, *existing, "-t", "app.*")
    added = [line for line in after if line not in before and not line.startswith("-- ")]
    grants = [line for line in added if line.startswith("GRANT")]
    assert all(re.fullmatch(r"GRANT SELECT\(.*\) ON .* TO brain_reader;", one) for one in grants)
    triggers = [
        re.search(r'"(.*)" AFTER .* ON (\S+)', line)
        for line in added
        if line and line not in grants
    ]
    assert sorted(match.groups() if match else () for match in triggers) == [
        ("!brain_1_row_1", "public.tasks"),
        ("!brain_1_row_2", "public.agents"),
        ("!brain_2_truncate_1", "public.tasks"),
        ("!brain_2_truncate_2", "public.agents"),
    ]
    assert [line for line in before if line not in after] == []


async def test_of_an_existing_table_the_columns_that_it_has_are_streamed(empty: str) -> None:
    await execute(
        empty, "CREATE TABLE tasks (id int PRIMARY KEY, status text, agent text, ours text)"
    )
    await migrate(empty, every_schema())

    connection = await asyncpg.connect(empty)
    assert await changes(
        empty, connection, "INSERT INTO tasks VALUES (1, 'running', 'ann', 'secret')"
    ) == [("I", [1], {"id": 1, "status": "running", "agent": "ann"})]
    await connection.close()


CASES = {
    "lacks a required column": (
        "CREATE TABLE tasks (id int PRIMARY KEY)",
        "public.tasks lacks status, so it is not watched: add what is missing, then: "
        "brain watch public.tasks --channel tasks --columns id,status",
        "ALTER TABLE tasks ADD status text",
    ),
    "lacks wanted columns": (
        "CREATE TABLE tasks (id int PRIMARY KEY, status text, agent text, progress int,"
        " error text)",
        "public.tasks is watched without started_at, completed_at: add what is missing, then: "
        + WATCH_TASKS,
        "ALTER TABLE tasks ADD started_at date, ADD completed_at date",
    ),
    "has no primary key": (
        "CREATE TABLE tasks (id int, status text, agent text, progress int, error text,"
        " started_at date, completed_at date)",
        f"public.tasks has no primary key, so it is not watched: add one, then: {WATCH_TASKS}",
        "ALTER TABLE tasks ADD PRIMARY KEY (id)",
    ),
    "its channel is another table's": (
        "CREATE TABLE tasks (id int PRIMARY KEY, status text, agent text, progress int, error text,"
        " started_at date, completed_at date); CREATE TABLE chores (id int PRIMARY KEY);"
        " SELECT brain.watch('chores', 'tasks', '{id}')",
        "public.tasks is not watched: the channel tasks is that of table public.chores: "
        f"fix that, then run: {WATCH_TASKS}",
        "SELECT brain.unwatch('chores')",
    ),
    "is watched on another channel": (
        "CREATE TABLE tasks (id int PRIMARY KEY, status text, agent text, progress int, error text,"
        " started_at date, completed_at date); SELECT brain.watch('tasks', 'chores', '{id}')",
        "public.tasks is watched on the channel chores and not on tasks; this changes it: "
        + WATCH_TASKS,
        "SELECT",
    ),
    "is watched in part": (
        "CREATE TABLE tasks (id int PRIMARY KEY, status text, agent text, progress int, error text,"
        " started_at date, completed_at date); SELECT brain.watch('tasks', 'tasks', '{id,status}')",
        "public.tasks is watched without agent, progress, started_at, completed_at, error: "
        f"add what is missing, then: {WATCH_TASKS}",
        "SELECT",
    ),
}


@pytest.mark.parametrize("case", CASES)
async def test_what_is_left_out_is_one_warning_with_the_way_out(
    core_database: str, caplog: pytest.LogCaptureFixture, case: str
) -> None:
    statements, problem, remedy = CASES[case]
    await execute(core_database, statements)

    await migrate(core_database, every_schema())

    assert warnings(caplog) == [problem]
    assert await problems(core_database) == {"public.tasks": problem}
    await execute(core_database, remedy)
    table, channel, columns = problem.rpartition("brain watch ")[2].split(" ")[::2]
    await execute(core_database, f"SELECT brain.watch('{table}', '{channel}', '{{{columns}}}')")
    left = {
        "public.tasks": "public.tasks is watched without agent, progress, started_at, completed_at,"
        f" error: add what is missing, then: {WATCH_TASKS}"
    }
    assert await problems(core_database) == (left if "lacks status" in problem else {})


@pytest.mark.parametrize(
    ("statements", "problem"),
    [
        (
            "CREATE VIEW tasks AS SELECT 1 AS id",
            "public.tasks is not a table, so it is not watched",
        ),
        (
            "CREATE DOMAIN tasks AS int",
            'public.tasks does not exist: type "tasks" already exists: fix that, then run: '
            "brain migrate",
        ),
        (
            "CREATE TABLE tasks (id int PRIMARY KEY, status text, agent text, progress int,"
            " error text, started_at date, completed_at date);"
            " CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql"
            " AS $$ BEGIN IF tg_tag = 'CREATE TRIGGER' THEN RAISE 'none here'; END IF; END $$;"
            " CREATE EVENT TRIGGER refuse ON ddl_command_end WHEN tag IN ('CREATE TRIGGER')"
            " EXECUTE FUNCTION refuse()",
            f"public.tasks is not watched: none here: fix that, then run: {WATCH_TASKS}",
        ),
    ],
    ids=["a view", "a type", "a refusal"],
)
async def test_what_cannot_be_watched_is_one_warning(
    postgres: str, caplog: pytest.LogCaptureFixture, statements: str, problem: str
) -> None:
    async with new_database(postgres) as url:
        await execute(url, statements)

        await migrate(url, [core_schema(), TASKS])

        assert warnings(caplog) == [problem]
        assert await problems(url) == {"public.tasks": problem}


INCOMPLETE = "CREATE TABLE workflows (id text PRIMARY KEY, name text, status text, start_time date)"


async def test_after_the_printed_way_out_the_feed_of_a_table_is_defined(
    core_database: str, caplog: pytest.LogCaptureFixture
) -> None:
    await execute(core_database, INCOMPLETE)
    schemas = every_schema()

    await migrate(core_database, schemas)

    found = await problems(core_database)
    assert sorted(found) == ["public.workflows", "workflows"]
    assert sorted(warnings(caplog)) == sorted(found.values())
    assert found["workflows"] == (
        "the feed workflows is not defined, because no table is watched on workflows: when one is,"
        " run: brain migrate"
    )
    await execute(
        core_database,
        "ALTER TABLE workflows ADD details jsonb; SELECT brain.watch("
        "'public.workflows', 'workflows', '{id,name,status,start_time,details}')",
    )
    assert sorted(await problems(core_database)) == ["workflows"]
    caplog.clear()
    assert await migrate(core_database, schemas) == []
    assert await problems(core_database) == {}
    assert warnings(caplog) == []
    connection = await asyncpg.connect(core_database)
    assert await connection.fetchval("SELECT brain.feed('workflows')") == "[]"
    await connection.close()


async def test_a_table_that_was_dropped_is_created_again(database: str) -> None:
    await execute(database, "DROP TABLE tasks")
    assert await problems(database) == {
        "public.tasks": "public.tasks does not exist; this creates it: brain migrate"
    }

    await migrate(database, every_schema())

    assert await problems(database) == {}
    connection = await asyncpg.connect(database)
    assert len(await changes(database, connection, "INSERT INTO tasks DEFAULT VALUES")) == 1
    await connection.close()


async def test_a_table_that_could_not_be_watched_at_the_first_start_is_watched_at_a_later_one(
    core_database: str,
) -> None:
    columns = "id int PRIMARY KEY, status text, agent text, progress int, error text"
    await execute(
        core_database,
        f"CREATE TABLE tasks ({columns}, started_at date, completed_at date);"
        " CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql"
        " AS $$ BEGIN IF tg_tag = 'CREATE TRIGGER' THEN RAISE 'none here'; END IF; END $$;"
        " CREATE EVENT TRIGGER refuse ON ddl_command_end WHEN tag IN ('CREATE TRIGGER')"
        " EXECUTE FUNCTION refuse()",
    )
    await migrate(core_database, [core_schema(), TASKS])
    assert "none here" in (await problems(core_database))["public.tasks"]
    await execute(core_database, "DROP EVENT TRIGGER refuse")

    await migrate(core_database, [core_schema(), TASKS])

    assert await problems(core_database) == {}


@pytest.mark.parametrize("migrates", [True, False], ids=["migrating", "not migrating"])
async def test_every_start_reports_each_problem_once(
    core_database: str,
    caplog: pytest.LogCaptureFixture,
    migrates: bool,
) -> None:
    await execute(core_database, f"CREATE TABLE tasks (id int PRIMARY KEY); {INCOMPLETE}")
    installed = installed_systems()
    tasks, *of_workflows = [
        "public.tasks lacks status, so it is not watched: add what is missing, then: "
        "brain watch public.tasks --channel tasks --columns id,status",
        "public.workflows lacks details, so it is not watched: add what is missing, then: brain "
        "watch public.workflows --channel workflows --columns id,name,status,start_time,details",
        "the feed workflows is not defined, because no table is watched on workflows: when one is,"
        " run: brain migrate",
    ]
    starts = [
        (["cecelia"], [tasks]),
        (["cecelia", "workflows"], [tasks, *of_workflows]),
        (["cecelia", "workflows"], [tasks, *of_workflows]),
        (["workflows"], of_workflows),
    ]
    for names, expected in starts:
        on = select_systems(names, installed)
        if not migrates:
            await migrate(core_database, schemas_of(on))
        caplog.clear()

        await prepare(core_database, Settings(migrate=migrates), on, installed, samples=False)

        assert sorted(warnings(caplog)) == sorted(expected)


@pytest.mark.parametrize("columns", ["title text, ours int", "agent text"])
async def test_no_samples_are_inserted_into_an_existing_table(
    core_database: str, caplog: pytest.LogCaptureFixture, columns: str
) -> None:
    await execute(
        core_database, f"CREATE TABLE tasks (id text PRIMARY KEY, status text, {columns})"
    )
    installed = installed_systems()
    on = select_systems(["cecelia"], installed)

    await prepare(core_database, Settings(), on, installed, samples=True)

    assert "no sample tasks: public.tasks is not a table that Brain created" in caplog.messages
    connection = await asyncpg.connect(core_database)
    assert await connection.fetchval("SELECT count(*) FROM tasks") == 0
    await connection.close()


async def test_no_samples_are_inserted_into_a_table_that_was_altered(
    database: str, caplog: pytest.LogCaptureFixture
) -> None:
    await execute(database, "ALTER TABLE tasks DROP COLUMN title")
    installed = installed_systems()
    on = select_systems(["all"], installed)

    await prepare(database, Settings(), on, installed, samples=True)

    assert 'no sample tasks: public.tasks was altered: column "title"' in caplog.text


async def test_a_table_of_another_owner_is_a_warning(
    postgres: str, core_database: str, caplog: pytest.LogCaptureFixture
) -> None:
    columns = "id int PRIMARY KEY, status text, agent text, progress int, error text"
    await execute(
        core_database,
        f"CREATE TABLE tasks ({columns}, started_at date, completed_at date)",
    )
    async with ordinary_role(postgres) as (role, admin):
        await admin.execute(f"GRANT brain_owner TO {role}")

        await migrate(as_role(core_database, role), [core_schema(), TASKS])

    assert warnings(caplog) == [
        f"public.tasks is not watched: role {role} may not create triggers on public.tasks:"
        f" its owner can allow it: GRANT TRIGGER ON public.tasks TO {role}: fix that, then run: "
        + WATCH_TASKS
    ]


async def test_a_table_that_may_not_be_created_is_a_warning_that_names_the_right(
    postgres: str, core_database: str, caplog: pytest.LogCaptureFixture
) -> None:
    await execute(core_database, "REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    async with ordinary_role(postgres) as (role, admin):
        await admin.execute(f"GRANT brain_owner TO {role}")

        await migrate(as_role(core_database, role), [core_schema(), TASKS])

        right = f"GRANT CREATE ON SCHEMA public TO {role}"
        assert warnings(caplog) == [
            "public.tasks does not exist: permission denied for schema public (an administrator can"
            f" allow it with {right}): fix that, then run: brain migrate"
        ]
        await execute(core_database, right)
        await migrate(as_role(core_database, role), [core_schema(), TASKS])
        assert await problems(core_database) == {}
        await execute(core_database, f"DROP OWNED BY {role} CASCADE")


async def test_nothing_is_wrong_with_tables_that_brain_created(
    connection: asyncpg.Connection,
) -> None:
    rows = await connection.fetch("SELECT * FROM brain.system_table_status")

    assert len(rows) == 13
    assert all(row["created_by_brain"] and row["is_watched"] for row in rows)
    assert [row["problem"] for row in rows if row["problem"]] == []


async def test_a_table_in_the_place_of_one_that_brain_created_is_not_altered(database: str) -> None:
    await execute(
        database,
        "DROP TABLE tasks; CREATE TABLE tasks (id int PRIMARY KEY, status text);"
        " UPDATE brain.schema_versions SET sha256 = ''",
    )

    await migrate(database, every_schema())

    connection = await asyncpg.connect(database)
    (row,) = await connection.fetch(
        "SELECT created_by_brain, is_watched FROM brain.system_table_status"
        " WHERE relation = 'public.tasks'"
    )
    names = await connection.fetch(
        "SELECT tgname FROM pg_trigger WHERE tgrelid = 'tasks'::regclass ORDER BY 1"
    )
    await connection.close()
    assert tuple(row) == (False, True)
    assert [name for (name,) in names] == ["!brain_1_row_14", "!brain_2_truncate_14"]


async def test_python_reads_what_the_sql_declares(connection: asyncpg.Connection) -> None:
    rows = await connection.fetch(
        "SELECT schema, relation, channel, required, wanted FROM brain.system_tables"
    )
    in_the_database = {
        SystemTable(schema, relation, channel, tuple(required), tuple(wanted))
        for schema, relation, channel, required, wanted in rows
    }

    declared = {table for unit in every_schema() for table in declared_tables(unit)}

    assert declared == in_the_database


@pytest.mark.one_version
@pytest.mark.parametrize(
    "written",
    [
        "brain.adopt_table('x', 'public.y', required => '{id}', channel => 'y', wanted => '{}')",
        "brain.adopt_table('x', $$public.y$$, channel => 'y', required => '{id}', wanted => '{}')",
        "Brain.Adopt_Table ('x', 'public.y', 'y', '{id}', '{}', '')",
    ],
)
def test_a_call_of_adopt_table_that_cannot_be_read_is_an_error(
    tmp_path: Path, written: str
) -> None:
    readable = (
        "SELECT brain.adopt_table('x', 'public.x',\n"
        " channel => 'x', required => '{id}', wanted => '{}', '');"
    )
    (tmp_path / "schema.sql").write_text(readable)
    assert [table.relation for table in declared_tables(Schema("x", tmp_path))] == ["public.x"]

    (tmp_path / "schema.sql").write_text(f"{readable} SELECT {written};")
    with pytest.raises(
        MigrationError, match=re.escape(f"adopt_table in {tmp_path} cannot be read")
    ):
        declared_tables(Schema("x", tmp_path))


async def test_a_table_that_fits_a_system_that_is_off_is_found(core_database: str) -> None:
    await execute(
        core_database,
        """
        CREATE TABLE tasks (id int PRIMARY KEY, status text);
        CREATE TABLE agents (id int PRIMARY KEY, name text);
        CREATE TABLE messages (id int, conversation_id int, sender int, content text);
        CREATE TABLE missions (id int PRIMARY KEY, status text);
        CREATE VIEW sessions AS SELECT 1 AS id, 2 AS agent_id, 3 AS last_message;
        """,
    )
    connection = await asyncpg.connect(core_database)
    before = await dump(core_database)

    tables = [table for unit in every_schema() for table in declared_tables(unit)]
    fitting = await fitting_tables(connection, tables)

    assert [table.relation for table in fitting] == ["public.tasks", "public.missions"]
    assert await fitting_tables(connection, []) == []
    assert await dump(core_database) == before
    await connection.close()


def with_feed(folder: Path, query: str) -> Schema:
    (folder / "schema.sql").write_text(
        f"-- A feed. \nSELECT brain.adopt_feed('counting', 'counted', $$ {query} $$, '{{tasks}}')"
    )
    return Schema("counting", folder)


async def feed(url: str) -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval("SELECT query FROM brain.feeds WHERE name = 'counted'")
    finally:
        await connection.close()


async def test_a_feed_of_a_system_follows_its_schema(database: str, tmp_path: Path) -> None:
    await migrate(database, [with_feed(tmp_path, "SELECT jsonb '1'")])
    await migrate(database, [with_feed(tmp_path, "SELECT jsonb '2'")])

    assert await feed(database) == " SELECT jsonb '2'"


REPLACE = "SELECT brain.define_feed('counted', $$SELECT jsonb '3'$$, '{tasks}')"


@pytest.mark.parametrize(
    ("was_adopted", "statement", "query"),
    [
        (False, REPLACE, "SELECT jsonb '3'"),
        (True, REPLACE, "SELECT jsonb '3'"),
        (True, "SELECT brain.drop_feed('counted')", None),
    ],
    ids=["defined before", "replaced", "dropped"],
)
async def test_a_feed_that_the_operator_has_changed_stays_so(
    database: str, tmp_path: Path, was_adopted: bool, statement: str, query: str | None
) -> None:
    if was_adopted:
        await migrate(database, [with_feed(tmp_path, "SELECT jsonb '1'")])
    await execute(database, statement)

    await migrate(database, [with_feed(tmp_path, "SELECT jsonb '2'")])

    assert await feed(database) == query


async def test_a_feed_whose_query_fails_is_a_warning(
    database: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await migrate(database, [with_feed(tmp_path, "SELECT jsonb '1' FROM nowhere")])

    assert await feed(database) is None
    problem = (
        'the feed counted is not defined: relation "nowhere" does not exist: fix that, then run: '
        "brain migrate"
    )
    assert warnings(caplog) == [problem]
    assert await problems(database) == {"counted": problem}
