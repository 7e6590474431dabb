"""CORS: pages of allowed origins may use the HTTP API; those of others are refused, and logged."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from brain.auth.origin import REFUSED, Origins, is_listed
from brain.transport.refusal_counts import note_refusal
from brain.web.host_check import is_exempt
from brain.web.responses import error_response

METHODS = ("GET", "HEAD", "POST")
EXPOSED_HEADERS = ("ETag", "Retry-After", "WWW-Authenticate")


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
            # For a proxy that lets clients in by a cookie: Brain itself has none.
            allow_credentials=True,
            expose_headers=EXPOSED_HEADERS,
        )
        self._origins = origins

    def is_allowed_origin(self, origin: str) -> bool:
        return is_listed(origin, self._origins.allowed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not is_exempt(scope):
            headers = Headers(scope=scope)
            if not self._origins.allows(headers.get("origin"), headers.get("host")):
                is_preflight = "access-control-request-method" in headers
                status = 400 if scope["method"] == "OPTIONS" and is_preflight else 403
                note_refusal(scope, status, "origin")
                response = error_response(REFUSED, status)
                response.headers["vary"] = "Origin"
                await response(scope, receive, send)
                return
        await super().__call__(scope, receive, send)
