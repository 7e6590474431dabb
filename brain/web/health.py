"""
How Brain is, for those who watch agents.

Source: the documentation of Mission Control, "Health Check".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from brain.database.nodes import Everywhere
from brain.message.times import iso_milliseconds
from brain.web.status import printed


def routes(
    url: str, is_live: Callable[[], bool], everywhere: Callable[[], Awaitable[Everywhere]]
) -> list[Route]:
    """
    Return the endpoint.

    What the documentation calls a gateway, from which the changes come, is the database at `url`.
    """

    async def health(request: Request) -> Response:
        found, is_well = await everywhere(), is_live()
        return printed(
            {
                "status": "ok" if is_well else "degraded",
                "timestamp": iso_milliseconds(datetime.now(UTC)),
                "gateway": "connected" if is_well else "disconnected",
                "websocket": {
                    "status": "running",
                    "connections": found.clients,
                    "connectedUsers": found.users,
                },
                "config": {"gatewayUrl": without_secrets(url), "useMockData": False},
            },
            200 if is_well else 503,
        )

    return [Route("/health", health)]


def without_secrets(url: str) -> str:
    """Return where a database is: no user, no password, no options."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or "localhost"
    try:
        port = f":{parts.port}" if parts.port else ""
    except ValueError:  # several hosts
        return f"{parts.scheme}://…{parts.path}"
    return f"{parts.scheme}://{host}{port}{parts.path}"
