"""The pages: the front door, live for a browser and short JSON for others, and the test page."""

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
    """Return the pages and their scripts."""

    async def front_door(request: Request) -> Response:
        if "text/html" in request.headers.get("accept", ""):
            response: Response = FileResponse(FOLDER / "index.html", headers=HEADERS)
        else:
            response = printed(summary())
        response.headers["vary"] = "Accept"
        return response

    async def script(request: Request) -> Response:
        return FileResponse(FOLDER / "tasks.js", media_type="text/javascript", headers=HEADERS)

    async def test_page(request: Request) -> Response:
        return FileResponse(FOLDER / "websocket_test.html", headers=HEADERS)

    async def test_script(request: Request) -> Response:
        path = FOLDER / "websocket_test.js"
        return FileResponse(path, media_type="text/javascript", headers=HEADERS)

    return [
        Route("/", front_door),
        Route("/tasks.js", script),
        Route("/static/websocket_test.html", test_page),
        Route("/static/websocket_test.js", test_script),
    ]
