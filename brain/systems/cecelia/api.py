"""The list of tasks."""

from __future__ import annotations

from functools import partial
from typing import Any

import asyncpg
import orjson
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from brain.database.single_flight import SingleFlight
from brain.description.routes import DescribedRoute, Operation, Right
from brain.systems.cecelia.task_queries import recent_tasks
from brain.systems.shared_tables.tasks.rows import CHANNEL
from brain.web.requests import require_readable
from brain.web.responses import json_response
from brain.web.services import Services

MOST_TASKS = 200


class ListedTask(BaseModel):
    """A task; null where the table has no such column."""

    id: str
    title: str | None
    agent: str | None
    status: str | None
    progress: int | float | None
    total_steps: Any
    step_name: Any
    started_at: str | None
    completed_at: str | None
    updated_at: str | None
    error: str | None


class TaskList(BaseModel):
    """The tasks that were updated last, newest first."""

    tasks: list[ListedTask]


LIST = Operation(
    id="getTasks",
    summary=f"The {MOST_TASKS} tasks that were updated last",
    tag="cecelia",
    right=Right.READING,
    responses={200: TaskList},
    errors=(401, 403, 404, 503),
)


def routes(services: Services) -> list[DescribedRoute]:
    """Return the endpoint, which reads through the pool in the request's state."""
    shared: SingleFlight[str | None, str | None] = SingleFlight("recent tasks")
    seconds = services.settings.table_timeout_seconds

    async def read(pool: asyncpg.Pool, allowed: str | None) -> str | None:
        async with pool.acquire(timeout=seconds) as connection:
            return await recent_tasks(connection, MOST_TASKS, seconds, allowed)

    async def tasks(request: Request) -> Response:
        await require_readable(request, services.authority, CHANNEL)
        # A call that begins later: it sees what the client knows of.
        rows = request.state.access.rows(CHANNEL)
        allowed = None if rows is None else rows.allowed
        text = await shared.run_later(allowed, partial(read, request.state.pool, allowed))
        if text is None:
            raise HTTPException(404, f"public.tasks is not watched on the channel {CHANNEL}")
        return json_response({"tasks": orjson.Fragment(text)})

    return [DescribedRoute("/api/brain/tasks", tasks, LIST)]
