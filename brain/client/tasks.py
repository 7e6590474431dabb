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

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from brain.database.binaries import find_binaries
from brain.database.connection import connected
from brain.database.embedded import default_folder, running_url
from brain.database.tasks import Queryable, change_status, merge_payload
from brain.errors import DatabaseUnreachable
from brain.settings import Settings

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


@asynccontextmanager
async def chosen(connection: Queryable | None) -> AsyncIterator[Queryable]:
    """Yield `connection`, or one of its own to the configured database."""
    if connection is not None:
        yield connection
        return
    url = Settings().database_url or running_url(default_folder(find_binaries().major))
    if url is None:
        raise DatabaseUnreachable(
            "no database: set BRAIN_DATABASE_URL, pass a connection, or start `brain serve`"
        )
    async with connected(url) as own:
        yield own
