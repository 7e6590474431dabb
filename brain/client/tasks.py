"""
Changing tasks from a backend; every change reaches all clients by itself.

    from brain.client.tasks import update_task_progress, update_task_status

    await update_task_progress(task_id, current_step=5, step_name="Writing code")
    await update_task_status(task_id, "completed", payload={"result": "Success"})

The functions connect to the database that Brain's settings name (`BRAIN_DATABASE_URL` or
`DATABASE_URL`), or to Brain's own server where one is running. A backend that calls them often
passes a `connection` or a pool; inside a transaction of that connection, clients hear of the change
when it commits, and not at all if it does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from brain.client.connection import chosen
from brain.database.connection import Queryable
from brain.database.tasks import change_status, merge_payload

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
    completed or failed.
    """
    async with chosen(connection) as database:
        await change_status(database, task_id, status, payload, error)


async def update_task_progress(
    task_id: str, *, current_step: float, connection: Queryable | None = None, **details: Any
) -> None:
    """
    Set how far a task is: `current_step` and `details` are merged into its payload.

    The task's progress becomes `current_step`. Raises `UnknownTask`.
    """
    async with chosen(connection) as database:
        await merge_payload(database, task_id, {"current_step": current_step, **details})
