"""Reads the table `tasks` for the page, and changes it for a backend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from brain.database.connection import Queryable
from brain.systems.cecelia.errors import UnknownStatus, UnknownTask

STATUSES = ("queued", "running", "in_progress", "completed", "failed")


async def recent_tasks(connection: Queryable, most: int) -> list[dict[str, Any]]:
    """Return the tasks that were updated last, newest first, with the columns of the page."""
    text = await connection.fetchval(
        """
        SELECT coalesce(jsonb_agg(to_jsonb(t) ORDER BY t.updated_at DESC, t.id), '[]')
          FROM (SELECT id::text, title, agent, status, progress,
                       payload -> 'total_steps' AS total_steps, payload -> 'step_name' AS step_name,
                       started_at, completed_at, updated_at, error
                  FROM public.tasks
                 ORDER BY updated_at DESC, id LIMIT $1) t
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

    Raises `UnknownStatus` and `UnknownTask`.
    """
    if status not in STATUSES:
        raise UnknownStatus(f"a task's status is one of {', '.join(STATUSES)}, not {status!r}")
    found = await connection.fetchval(
        """
        UPDATE public.tasks
           SET status = $2, payload = payload || $3::text::jsonb, error = coalesce($4, error)
         WHERE id = $1 RETURNING true
        """,
        task_id,
        status,
        orjson.dumps(payload).decode(),
        error,
    )
    require(found, task_id)


async def merge_payload(connection: Queryable, task_id: str, payload: Mapping[str, Any]) -> None:
    """Merge `payload` into a task's payload. Raises `UnknownTask`."""
    found = await connection.fetchval(
        """
        UPDATE public.tasks SET payload = payload || $2::text::jsonb WHERE id = $1 RETURNING true
        """,
        task_id,
        orjson.dumps(payload).decode(),
    )
    require(found, task_id)


def require(found: bool | None, task_id: str) -> None:
    if not found:
        raise UnknownTask(f"there is no task {task_id!r}")
