"""CORS: pages of allowed origins may use the HTTP API, and refused ones are logged."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from brain.auth.origin import Origins

METHODS = ("GET", "HEAD", "POST")
EXPOSED_HEADERS = ("ETag", "Retry-After")


class CrossOriginMiddleware(CORSMiddleware):
    """
    Lets browsers hand responses to pages of the allowed origins.

    WebSockets pass: their handshake decides for itself, since browsers do not.
    """

    def __init__(self, app: ASGIApp, origins: Origins) -> None:
        super().__init__(
            app,
            allow_origins=origins.allowed,
            allow_methods=METHODS,
            allow_headers=("*",),
            expose_headers=EXPOSED_HEADERS,
        )
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            self._origins.allows(headers.get("origin"), headers.get("host"))  # logs
        await super().__call__(scope, receive, send)
