"""
The health of Brain, in the form that Mission Control documents.

Source: the documentation of Mission Control, "Health Check".
"""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from brain.message.timestamps import iso_milliseconds
from brain.web.responses import json_response
from brain.web.services import Services


def routes(services: Services) -> list[Route]:
    """
    Return the endpoint.

    What the documentation calls a gateway, from which the changes come, is the database.
    """

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
                    "gatewayUrl": without_secrets(services.database_url),
                    "useMockData": False,
                },
            },
            200 if is_well else 503,
        )

    return [Route("/health", health)]


def without_secrets(url: str) -> str:
    """Return the address of a database without user, password and options."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or "localhost"
    try:
        port = f":{parts.port}" if parts.port else ""
    except ValueError:  # several hosts
        return f"{parts.scheme}://…{parts.path}"
    return f"{parts.scheme}://{host}{port}{parts.path}"
