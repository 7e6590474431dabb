"""The status of Brain, for curl and for load balancers."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from brain.web.responses import json_response
from brain.web.services import Services


def routes(services: Services) -> list[Route]:
    """Return the status endpoints."""

    async def websocket_status(request: Request) -> Response:
        elsewhere = await services.cluster.clients_elsewhere()
        return json_response(
            {
                "success": True,
                "websocket": {
                    "active": services.source.statistics().is_live,
                    "connected_clients": services.presence.counts().clients + elsewhere,
                    "endpoint": "/ws",
                },
            }
        )

    async def alive(request: Request) -> Response:
        return json_response({"status": "alive"})

    async def ready(request: Request) -> Response:
        is_live = services.source.statistics().is_live
        status: dict[str, object] = {"status": "ready" if is_live else "not following the database"}
        # They concern a part: the rest works, so that they do not make this process unready.
        if problems := services.problems.recent():
            status["problems"] = problems
        return json_response(status, 200 if is_live else 503)

    return [
        Route("/api/brain/status/ws", websocket_status),
        Route("/healthz", alive),
        Route("/readyz", ready),
    ]
