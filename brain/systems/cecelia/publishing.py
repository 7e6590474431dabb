"""
Changing tasks from a Python backend; the trigger publishes every change.

    from brain.systems.cecelia.publishing import update_task_progress, update_task_status

    await update_task_progress(task_id, current_step=5, step_name="Writing code")
    await update_task_status(task_id, "completed", payload={"result": "Success"})

The functions connect to the database that Brain's settings name (`BRAIN_DATABASE_URL` or
`DATABASE_URL`), or to Brain's own server where one is running. A backend that calls them often
passes a `connection` or a pool; inside a transaction of that connection, the change is sent when it
commits, and not at all otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from brain.database.connection import Queryable
from brain.publishing.connection import chosen
from brain.systems.cecelia.task_queries import change_status, merge_payload

NOTHING: Mapping[str, Any] = {}


async def update_task_status(
    task_id: str,
    status: str,
    *,
    payload: Mapping[str, Any] = NOTHING,
    error: str | None = None,
    connection: Queryable | None = None,
) -> None:
    """
    Set the status of a task, and merge `payload` into its payload.

    Raises `UnknownTask`, and `UnknownStatus` for what is not queued, running, in_progress,
    completed or failed. In a table that Brain did not create, an `error` for which there is no
    column is merged into the payload, and what the table cannot store raises `ColumnMissing`.
    """
    async with chosen(connection) as database:
        await change_status(database, task_id, status, payload, error)


async def update_task_progress(
    task_id: str, *, current_step: float, connection: Queryable | None = None, **details: Any
) -> None:
    """
    Set the progress of a task: merge `current_step` and `details` into its payload.

    The task's progress becomes `current_step`, in a table that Brain created, or that has no
    column `progress`. Raises `UnknownTask`, and `ColumnMissing` for a table without a column
    `payload`.
    """
    async with chosen(connection) as database:
        await merge_payload(database, task_id, {"current_step": current_step, **details})
