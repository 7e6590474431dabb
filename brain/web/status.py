"""How Brain is doing, for curl, for load balancers and for whoever looks at the front door."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import brain
from brain.listener.listener import ListenerStatistics


def routes(
    clients_here: Callable[[], int],
    listener: Callable[[], ListenerStatistics],
    clients_elsewhere: Callable[[], Awaitable[int]],
) -> list[Route]:
    """
    Return the status endpoints.

    `listener` answers how the listener is doing, `clients_here` how many clients this process has,
    and `clients_elsewhere`, promptly, how many
    clients the other processes have that serve the same database.
    """

    async def websocket_status(request: Request) -> Response:
        elsewhere = await clients_elsewhere()
        return printed(
            {
                "success": True,
                "websocket": {
                    "active": listener().is_live,
                    "connected_clients": clients_here() + elsewhere,
                    "endpoint": "/ws",
                },
            }
        )

    async def alive(request: Request) -> Response:
        return printed({"status": "alive"})

    async def ready(request: Request) -> Response:
        if listener().is_live:
            return printed({"status": "ready"})
        return printed({"status": "not following the database"}, 503)

    return [
        Route("/api/brain/status/ws", websocket_status),
        Route("/healthz", alive),
        Route("/readyz", ready),
    ]


def summary() -> dict[str, Any]:
    """Say what this is and where to go from here."""
    return {
        "service": "brain",
        "version": brain.__version__,
        "links": {
            "websocket": "/ws",
            "status": "/api/brain/status/ws",
            "tasks": "/api/brain/tasks",
            "ready": "/readyz",
        },
    }


def printed(content: object, status_code: int = 200) -> Response:
    """Answer with JSON as a person reads it at a terminal."""
    return Response(
        orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE),
        status_code,
        {"cache-control": "no-store"},
        media_type="application/json",
    )
