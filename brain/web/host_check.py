"""The `Host` of requests: those to another name than Brain's are refused."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from brain.auth.hosts import REFUSED, Hosts
from brain.transport.handshake import refuse
from brain.transport.refusal_counts import note_refusal
from brain.web.responses import error_response

EXEMPT = ("/healthz", "/readyz", "/metrics")
"""What load balancers ask, and those that scrape metrics with a token, by whatever name."""

FOREIGN = "brain.foreign_host"
"""In the scope of such a request: whether it is addressed to another host."""


def is_exempt(scope: Scope) -> bool:
    """Return True for a request of a load balancer; the path has that of a mount in front."""
    path: str = scope["path"].removeprefix(scope.get("root_path", ""))
    return scope["type"] == "http" and path in EXEMPT


class HostMiddleware:
    """Refuses requests and WebSocket handshakes that are addressed to another host."""

    def __init__(self, app: ASGIApp, hosts: Hosts) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        hosts = Headers(scope=scope).getlist("host")
        if is_exempt(scope):
            await self._app({**scope, FOREIGN: not self._hosts.has(hosts)}, receive, send)
        elif self._hosts.allows(hosts):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await refuse(WebSocket(scope, receive, send), 403, REFUSED, "host")
        else:
            note_refusal(scope, 403, "host")
            await error_response(REFUSED, 403)(scope, receive, send)
