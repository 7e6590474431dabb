"""The tasks as they are, for whoever wants to know before the first change."""

from __future__ import annotations

import logging

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from brain.auth import Authority
from brain.database.connection import DISCONNECTIONS, told
from brain.database.tasks import recent_tasks
from brain.message.runs import CHANNEL
from brain.web.access import for_hearers
from brain.web.status import printed

MOST_TASKS = 200

logger = logging.getLogger(__name__)


def routes(authority: Authority) -> list[Route]:
    """Return the endpoint that lists the tasks, read through the pool in the request's state."""

    async def tasks(request: Request) -> Response:
        try:
            return printed({"tasks": await recent_tasks(request.state.pool, MOST_TASKS)})
        except DISCONNECTIONS as error:
            logger.warning("cannot list the tasks: %s", told(error))
            return printed({"error": "the database cannot be reached, try again later"}, 503)

    return [Route("/api/brain/tasks", for_hearers(authority, lambda _: CHANNEL, tasks))]
