"""
Reads the table `tasks` for the page, and changes it for a backend.

Of an existing table that Brain did not create, only the columns `id` and `status` are certain.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import asyncpg
import orjson

from brain.database.budget import (
    GRACE_SECONDS,
    QueryFailed,
    TooSlow,
    bounded,
    concerning,
    unavailable,
)
from brain.database.connection import Queryable, first_line
from brain.database.log import LogConnection
from brain.systems.cecelia.errors import ColumnMissing, UnknownStatus, UnknownTask
from brain.systems.shared_tables.tasks.rows import CHANNEL

STATUSES = ("queued", "running", "in_progress", "completed", "failed")
MERGE_PAYLOAD = "payload = coalesce(payload::jsonb, '{{}}') || ${}::text::jsonb"


# In the subquery each name is the table's column where it has one, else that of `missing`.
RECENT = """
    SELECT coalesce(json_agg(json_build_object(
               'id', n.id::text, 'title', n.title, 'agent', n.agent, 'status', n.status,
               'progress', n.progress, 'total_steps', to_json(n.payload) -> 'total_steps',
               'step_name', to_json(n.payload) -> 'step_name', 'started_at', n.started_at,
               'completed_at', n.completed_at, 'updated_at', n.updated_at, 'error', n.error)
               ORDER BY n.place), '[]')::text
      FROM (SELECT NULL::text AS title, NULL::text AS agent, NULL::integer AS progress,
                   NULL::json AS payload, NULL::timestamptz AS started_at,
                   NULL::timestamptz AS completed_at, NULL::timestamptz AS updated_at,
                   NULL::text AS error) missing,
           LATERAL (SELECT id, title, agent, status, progress, payload, started_at, completed_at,
                           updated_at, error,
                           row_number() OVER (ORDER BY updated_at DESC NULLS LAST, id) AS place
                      FROM public.tasks t
                     ORDER BY updated_at DESC NULLS LAST, id LIMIT $1) n
"""


async def recent_tasks(connection: LogConnection, most: int, seconds: float = 4.0) -> str:
    """
    Return the tasks that were updated last, newest first, with the columns of the page, as JSON.

    A column that the table lacks is null. Raises `LogUnavailable` if the table cannot be read, or
    not in so many seconds.
    """
    try:
        with concerning(CHANNEL, seconds):
            async with bounded(connection, seconds):
                text: str = await connection.fetchval(RECENT, most, timeout=seconds + GRACE_SECONDS)
    except (QueryFailed, TooSlow) as error:
        raise unavailable(CHANNEL, error) from error
    return text


async def change_status(
    connection: Queryable,
    task_id: str,
    status: str,
    payload: Mapping[str, Any],
    error: str | None,
) -> None:
    """
    Set a task's status, and its error if one is given; merge `payload` into its payload.

    Raises `UnknownStatus`, `UnknownTask`, and `ColumnMissing` for what the table cannot store.
    """
    if status not in STATUSES:
        raise UnknownStatus(f"a task's status is one of {', '.join(STATUSES)}, not {status!r}")
    changes = {"status = $2": status}
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
