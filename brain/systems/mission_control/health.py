"""
The health of Brain, in the form that Mission Control documents.

Source: the documentation of Mission Control, "Health Check".
"""

from __future__ import annotations

from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from brain.database.url import shown
from brain.message.timestamps import iso_milliseconds
from brain.web.responses import json_response
from brain.web.services import Services


def routes(services: Services) -> list[Route]:
    """
    Return the endpoint.

    The document's gateway, the source of the changes, is the database here.
    """

    # Where clients need tokens, not everybody may know which database it is, and where.
    is_open = services.authority.is_open
    gateway = shown(services.database_url, with_user=False) if is_open else "postgresql:"

    async def health(request: Request) -> Response:
        found = await services.cluster.counts()
        is_well = services.source.statistics().is_live
        return json_response(
            {
                "status": "ok" if is_well else "degraded",
                "timestamp": iso_milliseconds(datetime.now(UTC)),
                "gateway": "connected" if is_well else "disconnected",
                "websocket": {
                    "status": "running",
                    "connections": found.clients,
                    "connectedUsers": found.users,
                },
                "config": {
                    "gatewayUrl": gateway,
                    "useMockData": False,
                },
            },
            200 if is_well else 503,
        )

    return [Route("/health", health)]
