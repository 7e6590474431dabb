"""A table `tasks` that was there before Brain: what is watched of it, and how clients see it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import orjson
import pytest

from brain.cli.serve import prepare
from brain.database.connection import opened_pool
from brain.database.migrations import migrate
from brain.database.schema_files import core_schema
from brain.message.row import Row
from brain.settings import Settings
from brain.system import installed_systems, select_systems
from brain.systems.cecelia.publishing import update_task_progress, update_task_status
from brain.systems.cecelia.task_queries import recent_tasks
from brain.systems.shared_tables.schemas import TASKS
from brain.systems.shared_tables.tasks.rows import task_data
from tests.database.changes import logged_events
from tests.database.log_reading import rows_of
from tests.end_to_end.brain import get, message, running_brain

pytestmark = pytest.mark.postgres_versions

CECELIA = """
    CREATE TYPE task_status AS ENUM ('queued', 'in_progress', 'completed', 'failed', 'paused');
    CREATE TABLE tasks (
        id uuid PRIMARY KEY DEFAULT gen_random_uuid(), title text, status task_status NOT NULL,
        payload jsonb, started_at timestamptz, completed_at timestamptz, updated_at timestamptz);
"""
WATCHED = "SELECT columns FROM brain.watches WHERE relation = 'tasks'::regclass"


@pytest.fixture
async def connection(core_database: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(core_database)
    yield connection
    await connection.close()


@pytest.mark.parametrize(
    ("columns", "watched"),
    [
        ("payload jsonb", "id status payload"),
        ("payload json, agent text", "id status agent payload"),
        ("payload jsonb, agent text, progress int, error text", "id status agent progress error"),
        ("payload jsonb, agent text, error text", "id status agent error payload"),
        (
            "payload jsonb, agent text, error text, current_step text",
            "id status agent error current_step",
        ),
        ("payload jsonb, progress int, current_step int", "id status progress payload"),
        ("current_step int", "id status current_step"),
        ("payload text, secret text", "id status"),
        ("started_at date", "id status started_at"),
    ],
)
async def test_the_payload_is_watched_only_where_a_column_is_missing(
    core_database: str, connection: asyncpg.Connection, columns: str, watched: str
) -> None:
    await connection.execute(f"CREATE TABLE tasks (id int PRIMARY KEY, status text, {columns})")

    await migrate(core_database, [core_schema(), TASKS])

    assert await connection.fetchval(WATCHED) == watched.split()


async def test_nothing_is_missing_of_a_table_with_a_payload(
    core_database: str, connection: asyncpg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    await connection.execute(CECELIA)

    await migrate(core_database, [core_schema(), TASKS])

    assert caplog.messages == []
    assert not await connection.fetch("SELECT * FROM brain.system_problems")
    assert await connection.fetchval(WATCHED) == [
        "id", "status", "started_at", "completed_at", "payload"
    ]  # fmt: skip


async def test_a_payload_that_is_not_watched_is_a_problem_with_a_way_out(
    core_database: str, connection: asyncpg.Connection
) -> None:
    await connection.execute(
        f"{CECELIA} SELECT brain.watch('tasks', 'tasks', '{{id,status,started_at,completed_at}}')"
    )

    await migrate(core_database, [core_schema(), TASKS])

    assert await connection.fetchval("SELECT problem FROM brain.system_problems") == (
        "public.tasks is watched without payload: add what is missing, then: brain watch"
        " public.tasks --channel tasks --columns id,status,started_at,completed_at,payload"
    )


async def shown(
    database: str, connection: asyncpg.Connection, statement: str
) -> list[dict[str, Any]]:
    """Return how clients see the rows of the events of a statement."""
    events = await logged_events(database, connection, statement)
    rows = [Row(event.data) for event in events if event.data is not None]
    return [json.loads(dumped(task_data(row))) for row in rows]


def dumped(data: dict[str, Any]) -> str:
    return orjson.dumps(data).decode()


TASK = ("payload jsonb", """'{"current_step": "7"}'""", {"progress": 7})


@pytest.mark.one_version  # the next one reads such a table on every version
@pytest.mark.parametrize(
    ("columns", "values", "expected"),
    [
        TASK,
        ("payload json", """'{"current_step": 7.5}'""", {"progress": 7.5}),
        ("payload json", """'{"agent": "dev", "error": "no"}'""", {"agent": "dev", "error": "no"}),
        ("payload jsonb", """'{"progress": 3, "current_step": 9}'""", {"progress": 3}),
        ("payload jsonb", """'{"current_step": "half", "error": {"a": 1}}'""", {}),
        ("payload jsonb", "'[1]'", {}),
        ("payload jsonb", "NULL", {}),
        ("current_step text", "'7'", {"progress": 7}),
        ("error text, payload jsonb", """NULL, '{"error": "no", "agent": "a"}'""", {"agent": "a"}),
        ("payload json", """'{"progress": true, "current_step": 9}'""", {"progress": 9}),
        ("progress text", "'50%'", {}),
        ("progress text", "''", {}),
        ("progress text", "'007'", {}),
        ("current_step text", "'half'", {}),
        ("progress numeric", "'NaN'", {}),
        ("progress float8", "'Infinity'", {}),
        ("progress boolean", "true", {}),
        ("progress jsonb", "'[7]'", {}),
        ("progress json", r"""'"\ud800"'""", {}),
        ("payload jsonb", """'{"progress": "007", "agent": ["a"], "error": false}'""", {}),
        ("agent jsonb, error json", """'{"name": "dev"}', '[1]'""", {}),
        ("agent boolean, error text[]", "true, '{no}'", {}),
        ("agent int, error jsonb", """7, '"no"'""", {"agent": "7", "error": "no"}),
        ("agent json", r"""'"\ud800"'""", {}),
        ("error json", r"""'"\u0000 \ud83d\ude00"'""", {"error": "\0 \U0001f600"}),
        ("error json", r"""'"\ud83d\ude00 \\ud800"'""", {"error": r"😀 \ud800"}),
        ("error text", r"""'\ud800 \u0000'""", {"error": r"\ud800 \u0000"}),
        ("payload json", r"""'{"agent": "dev", "note": "\ud800"}'""", {"agent": "dev"}),
    ],
)  # fmt: skip
async def test_what_has_no_column_comes_from_the_payload_and_what_is_of_another_kind_is_null(
    core_database: str,
    connection: asyncpg.Connection,
    columns: str,
    values: str,
    expected: dict[str, Any],
) -> None:
    key = "4f8b5b9a-8c5e-4f0e-9a57-000000000001"

    task, listed = await inserted(core_database, connection, "uuid", key, columns, values)

    assert (task["id"], task["status"]) == (key, "in_progress")
    found = {name: task[name] for name in ("agent", "progress", "error")}
    assert found == {"agent": None, "progress": None, "error": None, **expected}
    if not is_unreadable_for_postgresql(values):
        assert {name: listed[name] for name in found} == found


@pytest.mark.parametrize("type", ["int", "text"])
async def test_the_id_of_a_task_is_a_text_whatever_its_column_is(
    core_database: str, connection: asyncpg.Connection, type: str
) -> None:
    columns, values, expected = TASK

    task, listed = await inserted(core_database, connection, type, "17", columns, values)

    assert (task["id"], task["status"], task["progress"]) == ("17", "in_progress", 7)
    assert {name: task[name] for name in expected} == expected
    assert (listed["id"], listed["progress"]) == ("17", 7)


async def inserted(
    database: str, connection: asyncpg.Connection, type: str, id: str, columns: str, values: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Insert a task into a table whose `id` has this type; return it as sent, and as listed."""
    table = f"tasks (id {type} PRIMARY KEY, status text, {columns})"
    await connection.execute(f"CREATE TABLE {table}")
    await migrate(database, [core_schema(), TASKS])
    (task,) = await shown(
        database, connection, f"INSERT INTO tasks VALUES ('{id}', 'running', {values})"
    )
    async with opened_pool(database) as pool, pool.acquire() as lent:
        (listed,) = json.loads(await recent_tasks(lent, 1) or "")
    return task, listed


def is_unreadable_for_postgresql(values: str) -> bool:
    """Return True for JSON whose escapes PostgreSQL keeps as they are, and cannot read."""
    return r"\u0000 \ud83d" in values or r'"\ud800"}' in values


async def test_the_updaters_change_a_table_of_cecelias_own(
    core_database: str, connection: asyncpg.Connection
) -> None:
    await connection.execute(CECELIA)
    await migrate(core_database, [core_schema(), TASKS])
    id = str(await connection.fetchval("INSERT INTO tasks (status) VALUES ('queued') RETURNING id"))

    async def latest() -> tuple[str, Any, Any, Any]:
        (row,) = await rows_of(connection, "tasks")
        task = json.loads(dumped(task_data(Row(row))))
        return task["status"], task["progress"], task["agent"], task["error"]

    await update_task_progress(id, current_step=5, agent="dev", connection=connection)
    assert await latest() == ("queued", 5, "dev", None)
    await update_task_status(
        id, "failed", payload={"error": "Build failed", "current_step": "7"}, connection=connection
    )
    assert await latest() == ("failed", 7, "dev", "Build failed")
    await update_task_status(id, "failed", error="Again", connection=connection)
    assert await latest() == ("failed", 7, "dev", "Again")


@pytest.mark.one_version
async def test_a_client_sees_the_messages_of_such_a_table(
    core_database: str, connection: asyncpg.Connection, tmp_path: Any
) -> None:
    await connection.execute(CECELIA)
    options = ("--database-url", core_database, "--systems", "cecelia")
    async with running_brain(tmp_path, *options) as brain, brain.client() as client:
        await connection.execute(
            """INSERT INTO tasks (status, payload) VALUES ('queued', '{"current_step": "7"}')"""
        )
        await connection.execute(
            """UPDATE tasks SET status = 'failed', payload = payload || '{"error": "Build"}'"""
        )
        first, second = await message(client), await message(client)

    assert (first["type"], first["data"]["progress"]) == ("run_update", 7)
    assert (second["type"], second["data"]["error"]) == ("run_failed", "Build")


@pytest.mark.one_version
async def test_a_task_that_cannot_be_shown_is_a_problem_with_its_channel_and_key(
    core_database: str, connection: asyncpg.Connection, tmp_path: Any
) -> None:
    await connection.execute(CECELIA)
    key = "4f8b5b9a-8c5e-4f0e-9a57-000000000001"
    reason = "status is none of queued, in_progress, completed, failed and running"
    options = ("--database-url", core_database, "--systems", "cecelia")
    async with running_brain(tmp_path, *options) as brain:
        async with brain.client() as client:
            for _ in range(2):
                await connection.execute(
                    f"INSERT INTO tasks (id, status) VALUES ('{key}', 'paused'); DELETE FROM tasks"
                )
            await connection.execute("INSERT INTO tasks (status) VALUES ('queued')")
            assert (await message(client))["data"]["status"] == "queued"
        _, body = await get(brain.http + "/readyz")
        (problem,) = json.loads(body)["problems"]
        assert (problem["address"], problem["channel"]) == ("message tasks", "tasks")
        assert problem["text"] == f'["{key}"] is not sent to clients of base: {reason}'
        assert problem["count"] == 4

        await connection.execute(f"INSERT INTO tasks (id, status) VALUES ('{key}', 'paused')")
        _, body = await get(brain.http + "/api/brain/snapshot/tasks")
        assert len(json.loads(body)["rows"]) == 1
        _, body = await get(brain.http + "/readyz")
        (problem,) = json.loads(body)["problems"]
        assert problem["text"] == f'a row is left out of snapshots: "{key}": {reason}'
    lines = brain.output.read_text().splitlines()
    assert len([line for line in lines if f'message tasks: ["{key}"]' in line]) == 1


@pytest.mark.parametrize(
    "definition",
    [
        "TABLE tasks (id int PRIMARY KEY, name text, done boolean)",
        "TABLE tasks (name text, status text)",
        "VIEW tasks AS SELECT 1 AS id, 'x' AS status",
        "MATERIALIZED VIEW tasks AS SELECT 1 AS id, 'x' AS status",
        "TYPE tasks AS (id int)",
        "SEQUENCE tasks",
    ],
)
@pytest.mark.parametrize("migrates", [True, False])
async def test_a_tasks_of_someone_elses_stays_unwatched_with_one_warning(
    core_database: str,
    connection: asyncpg.Connection,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    definition: str,
    migrates: bool,
) -> None:
    await connection.execute(f"CREATE {definition}")
    installed = installed_systems()
    on = select_systems(["cecelia"], installed)
    if not migrates:
        await migrate(core_database, [core_schema(), TASKS])
        caplog.clear()

    await prepare(core_database, Settings(migrate=migrates), on, installed, samples=False)

    printed = capsys.readouterr().err.splitlines()
    warnings = [r.message for r in caplog.records if r.levelname == "WARNING"]
    (warning,) = [*warnings, *printed]
    assert "public.tasks" in warning
    assert not await connection.fetch("SELECT * FROM brain.watches")
    assert not await connection.fetch("SELECT FROM pg_trigger WHERE NOT tgisinternal")
