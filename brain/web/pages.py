"""Static pages, and `/`: a system's page for browsers, short JSON with links for all others."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

import brain
from brain.web.responses import json_response

HEADERS = {
    "cache-control": "no-cache",
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
        "connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
}

LINKS = {"websocket": "/ws", "status": "/api/brain/status/ws", "ready": "/readyz"}


def routes(front_page: Path | None, links: Mapping[str, str]) -> list[Route]:
    """Return `/`, with `front_page` for browsers if there is one, and `links` of the systems."""

    async def front(request: Request) -> Response:
        if front_page and "text/html" in request.headers.get("accept", ""):
            response: Response = FileResponse(front_page, headers=HEADERS)
        else:
            response = json_response(
                {
                    "service": "brain",
                    "version": brain.__version__,
                    "links": {**LINKS, **links},
                }
            )
        response.headers["vary"] = "Accept"
        return response

    return [Route("/", front)]


def static_route(path: str, file: Path, media_type: str | None = None) -> Route:
    """Return a route for a file that ships with Brain or a system."""

    async def static(request: Request) -> Response:
        return FileResponse(file, media_type=media_type, headers=HEADERS)

    return Route(path, static)
