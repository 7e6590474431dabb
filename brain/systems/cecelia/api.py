"""The list of tasks."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from brain.systems.cecelia.task_queries import recent_tasks
from brain.systems.shared_tables.tasks.rows import CHANNEL
from brain.web.requests import require_readable
from brain.web.responses import json_response
from brain.web.services import Services

MOST_TASKS = 200


def routes(services: Services) -> list[Route]:
    """Return the endpoint, which reads through the pool in the request's state."""

    async def tasks(request: Request) -> Response:
        await require_readable(request, services.authority, CHANNEL)
        return json_response({"tasks": await recent_tasks(request.state.pool, MOST_TASKS)})

    return [Route("/api/brain/tasks", tasks)]
