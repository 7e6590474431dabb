"""The status of Brain, for curl and for load balancers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from brain.listener.batch_source import BatchSourceStatistics
from brain.web.responses import json_response


def routes(
    clients_here: Callable[[], int],
    statistics: Callable[[], BatchSourceStatistics],
    clients_elsewhere: Callable[[], Awaitable[int]],
) -> list[Route]:
    """
    Return the status endpoints.

    `statistics` are those of the batch source, `clients_here` counts the clients of this process,
    and `clients_elsewhere`, promptly, those of all other processes on the same database.
    """

    async def websocket_status(request: Request) -> Response:
        elsewhere = await clients_elsewhere()
        return json_response(
            {
                "success": True,
                "websocket": {
                    "active": statistics().is_live,
                    "connected_clients": clients_here() + elsewhere,
                    "endpoint": "/ws",
                },
            }
        )

    async def alive(request: Request) -> Response:
        return json_response({"status": "alive"})

    async def ready(request: Request) -> Response:
        if statistics().is_live:
            return json_response({"status": "ready"})
        return json_response({"status": "not following the database"}, 503)

    return [
        Route("/api/brain/status/ws", websocket_status),
        Route("/healthz", alive),
        Route("/readyz", ready),
    ]
