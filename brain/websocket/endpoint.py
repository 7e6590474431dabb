"""Which address speaks which wire format."""

from __future__ import annotations

from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from brain.hub.hub import Hub
from brain.message.runs import CHANNEL, RunsFormat
from brain.websocket.conversation import converse


def routes(hub: Hub) -> list[WebSocketRoute]:
    """Return the WebSocket endpoints, which serve their clients from `hub`."""
    runs = RunsFormat()

    async def ws(websocket: WebSocket) -> None:
        await converse(websocket, hub, runs, frozenset({CHANNEL}))

    return [WebSocketRoute("/ws", ws)]
