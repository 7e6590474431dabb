from __future__ import annotations

import json
from datetime import datetime

import asyncpg
import orjson
import pytest

from brain.systems.cecelia.errors import ColumnMissing, UnknownStatus, UnknownTask
from brain.systems.cecelia.samples import insert_samples
from brain.systems.cecelia.task_queries import change_status, merge_payload, recent_tasks

pytestmark = pytest.mark.postgres_versions


async def test_a_status_is_set_and_the_payload_merged(connection: asyncpg.Connection) -> None:
    await connection.execute("""INSERT INTO tasks (id, payload) VALUES ('a', '{"x": 1, "y": 1}')""")

    await change_status(connection, "a", "completed", {"y": 2, "z": None}, None)

    task = await connection.fetchrow("SELECT status, payload, error FROM tasks")
    assert task is not None
    assert (task["status"], task["error"]) == ("completed", None)
    assert json.loads(task["payload"]) == {"x": 1, "y": 2, "z": None}


async def test_an_error_is_kept_until_another_is_given(connection: asyncpg.Connection) -> None:
    await connection.execute("INSERT INTO tasks (id) VALUES ('a')")

    await change_status(connection, "a", "failed", {}, "Build failed")
    await change_status(connection, "a", "failed", {}, None)

    assert await connection.fetchval("SELECT error FROM tasks") == "Build failed"


async def test_a_payload_is_merged_whatever_codec_the_connection_has_for_json(
    connection: asyncpg.Connection,
) -> None:
    await connection.execute("INSERT INTO tasks (id) VALUES ('a')")
    await connection.set_type_codec(
        "jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog"
    )

    await merge_payload(connection, "a", {"current_step": 5, "step_name": "Writing code"})

    task = await connection.fetchrow("SELECT progress, payload FROM tasks")
    assert task is not None
    assert task["progress"] == 5
    assert task["payload"] == {"current_step": 5, "step_name": "Writing code"}


async def test_an_unknown_status_is_refused_with_the_known_ones(
    connection: asyncpg.Connection,
) -> None:
    with pytest.raises(UnknownStatus, match=r"queued, running, .* not 'done'"):
        await change_status(connection, "a", "done", {}, None)


async def test_an_unknown_task_is_refused_by_name(connection: asyncpg.Connection) -> None:
    with pytest.raises(UnknownTask, match="'no-such-task'"):
        await change_status(connection, "no-such-task", "completed", {}, None)
    with pytest.raises(UnknownTask, match="'no-such-task'"):
        await merge_payload(connection, "no-such-task", {})


async def test_the_tasks_touched_last_come_first_and_no_more_than_asked_for(
    connection: asyncpg.Connection,
) -> None:
    await connection.execute(
        """
        INSERT INTO tasks (id, title, payload, updated_at)
        SELECT n::text, 'Task ' || n, '{"total_steps": 9, "secret": 1}', now() - n * interval '1 s'
          FROM generate_series(1, 5) n
        """
    )

    tasks = orjson.loads(await recent_tasks(connection, 3))

    assert [task["id"] for task in tasks] == ["1", "2", "3"]
    assert (tasks[0]["title"], tasks[0]["total_steps"]) == ("Task 1", 9)
    assert "payload" not in tasks[0]
    assert datetime.fromisoformat(tasks[0]["updated_at"]).tzinfo is not None


@pytest.mark.parametrize(
    ("columns", "tasks"),
    [
        ("id int PRIMARY KEY, status text", ["1", "2", "3"]),
        ("id bigint PRIMARY KEY, status text, updated_at date, payload text", ["2", "3", "1"]),
    ],
)
async def test_a_table_with_only_the_required_columns_is_listed_and_changed(
    core_database: str, columns: str, tasks: list[str]
) -> None:
    connection = await asyncpg.connect(core_database)
    await connection.execute(f"CREATE TABLE tasks ({columns}); INSERT INTO tasks VALUES (1, 'new')")
    if "updated_at" in columns:
        rows = "(2, 'new', '2026-02-02'), (3, 'new', '2026-02-01')"
    else:
        rows = "(2, 'new'), (3, 'new')"
    await connection.execute(f"INSERT INTO tasks VALUES {rows}")

    await change_status(connection, "2", "running", {}, None)

    listed = orjson.loads(await recent_tasks(connection, 200))
    assert [task["id"] for task in listed] == tasks
    changed = listed[tasks.index("2")]
    assert (changed["status"], changed["title"], changed["step_name"]) == ("running", None, None)
    with pytest.raises(ColumnMissing, match='column "error"'):
        await change_status(connection, "2", "failed", {}, "Build failed")
    if "payload" not in columns:
        with pytest.raises(ColumnMissing, match='column "payload"'):
            await merge_payload(connection, "2", {"current_step": 5})
    await connection.close()


async def test_there_are_no_tasks_in_an_empty_table(connection: asyncpg.Connection) -> None:
    assert orjson.loads(await recent_tasks(connection, 3)) == []


async def test_samples_are_only_put_into_an_empty_table(connection: asyncpg.Connection) -> None:
    await insert_samples(connection)
    count = await connection.fetchval("SELECT count(*) FROM tasks")
    await connection.execute("DELETE FROM tasks WHERE id = 'task-123'")

    await insert_samples(connection)

    assert await connection.fetchval("SELECT count(*) FROM tasks") == count - 1 > 0
