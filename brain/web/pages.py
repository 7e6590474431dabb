"""Static pages, and `/`: a system's page for browsers, short JSON with links for all others."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import FileResponse, Response

import brain
from brain.description.routes import Content, DescribedRoute, Operation
from brain.web.responses import json_response

HEADERS = {
    "cache-control": "no-cache",
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
        "connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
}

LINKS = {
    "websocket": "/ws",
    "status": "/api/brain/status/ws",
    "ready": "/readyz",
    "openapi": "/openapi.json",
    "asyncapi": "/asyncapi.json",
}


class Summary(BaseModel):
    """What serves here."""

    service: Literal["brain"]
    version: str
    links: dict[str, str]
    """Addresses, by what they are for."""


FRONT = Operation(
    id="getSummary",
    summary="The version, and links",
    description="Browsers, which accept text/html, get the page of a system, if one has a page.",
    responses={200: Summary},
)


def routes(front_page: Path | None, links: Mapping[str, str]) -> list[DescribedRoute]:
    """Return `/`, with `front_page` for browsers if there is one, and `links` of the systems."""

    async def front(request: Request) -> Response:
        if front_page and "text/html" in request.headers.get("accept", ""):
            response: Response = FileResponse(front_page, headers=HEADERS)
        else:
            prefix = request.scope.get("root_path", "")
            there = {name: f"{prefix}{path}" for name, path in {**LINKS, **links}.items()}
            response = json_response(
                Summary(service="brain", version=brain.__version__, links=there)
            )
        response.headers["vary"] = "Accept"
        return response

    return [DescribedRoute("/", front, FRONT)]


def static_route(
    path: str, file: Path, media_type: str = "text/html", *, id: str, summary: str, tag: str
) -> DescribedRoute:
    """Return a route for a file that ships with Brain or a system."""

    async def static(request: Request) -> Response:
        return FileResponse(file, media_type=media_type, headers=HEADERS)

    content = Content(media_type=media_type)
    operation = Operation(id=id, summary=summary, tag=tag, responses={200: content})
    return DescribedRoute(path, static, operation)
