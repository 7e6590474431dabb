"""
Reads the table `tasks` for the page, and changes it for a backend.

Of an existing table that Brain did not create, only the columns `id` and `status` are certain.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import asyncpg
import orjson

from brain.database.connection import Queryable, first_line
from brain.systems.cecelia.errors import ColumnMissing, UnknownStatus, UnknownTask

STATUSES = ("queued", "running", "in_progress", "completed", "failed")
MERGE_PAYLOAD = "payload = coalesce(payload::jsonb, '{{}}') || ${}::text::jsonb"

ERROR_IS_IN_PAYLOAD = """
    SELECT bool_or(attname = 'payload' AND atttypid IN ('json'::regtype, 'jsonb'::regtype))
           AND NOT bool_or(attname = 'error')
      FROM pg_attribute WHERE attrelid = 'public.tasks'::regclass AND attnum > 0
       AND NOT attisdropped
"""


async def recent_tasks(connection: Queryable, most: int) -> list[dict[str, Any]]:
    """
    Return the tasks that were updated last, newest first, with the columns of the page.

    A column that the table lacks is null; agent, progress and error are then those of the payload.
    """
    # In the subquery, `updated_at` is the table's column where it has one, else that of `missing`.
    text = await connection.fetchval(
        """
        SELECT coalesce(jsonb_agg(jsonb_build_object(
                   'id', row ->> 'id', 'title', row -> 'title',
                   'agent', CASE WHEN row ? 'agent' THEN row ELSE row -> 'payload' END -> 'agent',
                   'status', row -> 'status',
                   'progress', CASE WHEN progress #>> '{}' ~ '^[0-9]+([.][0-9]+)?$'
                                    THEN (progress #>> '{}')::jsonb END,
                   'total_steps', row -> 'payload' -> 'total_steps',
                   'step_name', row -> 'payload' -> 'step_name',
                   'started_at', row -> 'started_at', 'completed_at', row -> 'completed_at',
                   'updated_at', row -> 'updated_at',
                   'error', CASE WHEN row ? 'error' THEN row ELSE row -> 'payload' END -> 'error')
                   ORDER BY place), '[]')
          FROM (SELECT NULL::timestamptz AS updated_at) missing,
               LATERAL (SELECT to_jsonb(t) AS row,
                               row_number() OVER (ORDER BY updated_at DESC NULLS LAST, id) AS place
                          FROM public.tasks t
                         ORDER BY updated_at DESC NULLS LAST, id LIMIT $1) newest,
               LATERAL (SELECT CASE WHEN row ? 'progress' THEN row -> 'progress'
                                    WHEN row ? 'current_step' THEN row -> 'current_step'
                                    WHEN row -> 'payload' ? 'progress'
                                        THEN row -> 'payload' -> 'progress'
                                    ELSE row -> 'payload' -> 'current_step'
                               END AS progress) shown
        """,
        most,
    )
    tasks: list[dict[str, Any]] = orjson.loads(text)
    return tasks


async def change_status(
    connection: Queryable,
    task_id: str,
    status: str,
    payload: Mapping[str, Any],
    error: str | None,
) -> None:
    """
    Set a task's status, and its error if one is given; merge `payload` into its payload.

    In a table without a column `error`, that is a member of the payload.

    Raises `UnknownStatus`, `UnknownTask`, and `ColumnMissing` for what the table cannot store.
    """
    if status not in STATUSES:
        raise UnknownStatus(f"a task's status is one of {', '.join(STATUSES)}, not {status!r}")
    changes = {"status = $2": status}
    if error is not None and await connection.fetchval(ERROR_IS_IN_PAYLOAD):
        payload, error = {**payload, "error": error}, None
    if payload:
        changes[MERGE_PAYLOAD.format(3)] = orjson.dumps(payload).decode()
    if error is not None:
        changes[f"error = ${len(changes) + 2}"] = error
    await change(connection, task_id, changes)


async def merge_payload(connection: Queryable, task_id: str, payload: Mapping[str, Any]) -> None:
    """Merge `payload` into a task's payload. Raises `UnknownTask` and `ColumnMissing`."""
    await change(connection, task_id, {MERGE_PAYLOAD.format(2): orjson.dumps(payload).decode()})


async def change(connection: Queryable, task_id: str, changes: Mapping[str, str]) -> None:
    """Change a task by assignments, each with the value of its parameter, from $2 upwards."""
    statement = f"""
        UPDATE public.tasks SET {", ".join(changes)} WHERE id::text = $1 RETURNING true
    """  # noqa: S608
    try:
        found = await connection.fetchval(statement, task_id, *changes.values())
    except asyncpg.UndefinedColumnError as problem:
        raise ColumnMissing(f"public.tasks cannot store this: {first_line(problem)}") from problem
    if not found:
        raise UnknownTask(f"there is no task {task_id!r}")
