"""Requests that no route is for: 426 where only a WebSocket is served, 404 everywhere else."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from brain.transport.handshake import refuse

NO_ADDRESS = "there is no such address"


def upgrade_routes(routes: Iterable[BaseRoute]) -> list[Route]:
    """Return a route for plain requests to each path at which `routes` serve only WebSockets."""
    known = list(routes)
    with_http = {route.path for route in known if isinstance(route, Route)}
    paths = {route.path for route in known if isinstance(route, WebSocketRoute)} - with_http

    async def answer(request: Request) -> Response:
        return upgrade_required()

    return [Route(path, answer) for path in sorted(paths)]


def upgrade_required() -> Response:
    """Return the response of an address that only WebSockets have (RFC 9110, 7.8 and 15.5.22)."""
    return PlainTextResponse(
        "this address is a WebSocket: connect to it with ws:// or wss://\n",
        426,
        {"upgrade": "websocket", "connection": "upgrade"},
    )


async def not_found(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer what no route matches, a WebSocket handshake too, with 404."""
    if scope["type"] == "websocket":
        await refuse(WebSocket(scope, receive, send), 404, NO_ADDRESS)
    else:
        raise HTTPException(404, NO_ADDRESS)
