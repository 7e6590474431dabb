"""The front door: a live page for a browser, a short JSON for everybody else."""

from __future__ import annotations

from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from brain.web.status import printed, summary

FOLDER = Path(__file__).parent / "static"

HEADERS = {
    "cache-control": "no-cache",
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
        "connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
}


def routes() -> list[Route]:
    """Return the front door and the page's script."""

    async def front_door(request: Request) -> Response:
        if "text/html" in request.headers.get("accept", ""):
            response: Response = FileResponse(FOLDER / "index.html", headers=HEADERS)
        else:
            response = printed(summary())
        response.headers["vary"] = "Accept"
        return response

    async def script(request: Request) -> Response:
        return FileResponse(FOLDER / "tasks.js", media_type="text/javascript", headers=HEADERS)

    return [Route("/", front_door), Route("/tasks.js", script)]
