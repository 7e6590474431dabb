from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import asyncpg
import orjson
import pytest

from brain.database.connection import opened_pool
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
    database: str,
    connection: asyncpg.Connection,
) -> None:
    await connection.execute(
        """
        INSERT INTO tasks (id, title, payload, updated_at)
        SELECT n::text, 'Task ' || n, '{"total_steps": 9, "secret": 1}', now() - n * interval '1 s'
          FROM generate_series(1, 5) n
        """
    )

    tasks = await listed_tasks(database, most=3)

    assert [task["id"] for task in tasks] == ["1", "2", "3"]
    assert (tasks[0]["title"], tasks[0]["total_steps"]) == ("Task 1", 9)
    assert "payload" not in tasks[0]
    assert datetime.fromisoformat(tasks[0]["updated_at"]).tzinfo is not None


async def test_no_writer_makes_the_list_larger_than_its_columns_may_be(
    database: str, connection: asyncpg.Connection
) -> None:
    await connection.execute(
        """
        INSERT INTO tasks (id, title, agent, error, payload)
        SELECT 'a', large, large, large, jsonb_build_object('step_name', large)
          FROM repeat('x', 8193) large
        """
    )
    text = await task_list(database)
    assert text is not None and len(text) < 1000


async def listed_tasks(
    url: str, allowed: str | None = None, most: int = 200
) -> list[dict[str, Any]]:
    text = await task_list(url, allowed, most)
    assert text is not None
    tasks: list[dict[str, Any]] = orjson.loads(text)
    return tasks


async def task_list(url: str, allowed: str | None = None, most: int = 200) -> str | None:
    async with opened_pool(url) as pool, pool.acquire() as connection:
        return await recent_tasks(connection, most, allowed=allowed)


OWN_TABLE = """
    CREATE TABLE tasks (id int PRIMARY KEY, status text, title text, agent text, error text,
                        progress int, payload jsonb, updated_at timestamptz, owner text);
    INSERT INTO tasks VALUES (1, 'running', 'secret', 'ann', 'secret', 7,
        '{"step_name": "secret", "total_steps": 42, "error": "secret", "agent": "secret"}',
        now(), 'ann');
"""


@pytest.mark.parametrize(
    ("columns", "shown"),
    [
        ("{status}", {"status"}),
        ("{id}", set()),
        ("{status,agent,progress}", {"status", "agent", "progress"}),
        ("{status,updated_at}", {"status", "updated_at"}),
    ],
)
async def test_the_list_shows_the_watched_columns_and_no_others(
    core_database: str, columns: str, shown: set[str]
) -> None:
    connection = await asyncpg.connect(core_database)
    await connection.execute(OWN_TABLE)
    assert await task_list(core_database) is None
    await connection.execute(f"SELECT brain.watch('tasks', 'tasks', '{columns}')")
    (task,) = await listed_tasks(core_database)
    assert {name for name, value in task.items() if value is not None} == {"id", *shown}
    assert "secret" not in str(task)

    await connection.execute(f"SELECT brain.watch('tasks', 'chores', '{columns}')")
    assert await task_list(core_database) is None
    await connection.execute("SELECT brain.unwatch('tasks')")
    assert await task_list(core_database) is None
    await connection.close()


async def test_the_list_of_brains_own_table_has_what_the_page_shows_until_it_is_watched_otherwise(
    database: str,
    connection: asyncpg.Connection,
) -> None:
    await connection.execute("INSERT INTO tasks (id, title) VALUES ('1', 'secret')")
    assert [task["title"] for task in await listed_tasks(database)] == ["secret"]
    await connection.execute("SELECT brain.watch('tasks', 'tasks', '{id,status}')")
    assert [task["title"] for task in await listed_tasks(database)] == [None]


async def test_the_list_of_a_table_with_row_rules_has_the_allowed_rows_alone(
    core_database: str,
) -> None:
    connection = await asyncpg.connect(core_database)
    await connection.execute(OWN_TABLE)
    await connection.execute("INSERT INTO tasks (id, owner) VALUES (2, 'ben')")
    await connection.execute(
        """SELECT brain.watch('tasks', 'tasks', '{id}', rules => '{"owner": "sub"}')"""
    )
    number = await connection.fetchval("SELECT rule_number FROM brain.watched")
    for allowed, ids in (
        (f'{{"":[{number}],"owner":["ben"]}}', ["2"]),
        (f'{{"":[{number}],"owner":[]}}', []),
        (f'{{"":[{number}],"other":["ben"]}}', []),
        (f'{{"":[{number + 1}],"owner":["ben"]}}', []),
        ('{"owner":["ben"]}', []),
        (f'{{"":[{number}]}}', ["1", "2"]),
        (f'{{"":[{number + 1}]}}', []),
        (None, []),
    ):
        found = await listed_tasks(core_database, allowed)
        assert sorted(task["id"] for task in found) == ids
    await connection.close()


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
    names = [column.split()[0] for column in columns.split(", ")]
    await connection.execute("SELECT brain.watch('tasks', 'tasks', $1)", names)

    await change_status(connection, "2", "running", {}, None)

    listed = await listed_tasks(core_database)
    assert [task["id"] for task in listed] == tasks
    changed = listed[tasks.index("2")]
    assert (changed["status"], changed["title"], changed["step_name"]) == ("running", None, None)
    with pytest.raises(ColumnMissing, match='column "error"'):
        await change_status(connection, "2", "failed", {}, "Build failed")
    if "payload" not in columns:
        with pytest.raises(ColumnMissing, match='column "payload"'):
            await merge_payload(connection, "2", {"current_step": 5})
    await connection.close()


async def test_there_are_no_tasks_in_an_empty_table(
    database: str, connection: asyncpg.Connection
) -> None:
    assert await listed_tasks(database) == []


async def test_samples_are_only_put_into_an_empty_table(connection: asyncpg.Connection) -> None:
    await insert_samples(connection)
    count = await connection.fetchval("SELECT count(*) FROM tasks")
    await connection.execute("DELETE FROM tasks WHERE id = 'task-123'")

    await insert_samples(connection)

    assert await connection.fetchval("SELECT count(*) FROM tasks") == count - 1 > 0
