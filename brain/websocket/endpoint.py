"""Which address speaks which wire format."""

from __future__ import annotations

from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from brain.message.resumable import RunsWithCursorFormat
from brain.message.runs import CHANNEL, RunsFormat
from brain.websocket.conversation import Setting, converse

# Asks for cursors where the URL cannot.
CURSOR_SUBPROTOCOL = "brain.cursor"


def routes(setting: Setting) -> list[WebSocketRoute]:
    """Return the WebSocket endpoints."""
    runs = RunsFormat()
    runs_with_cursor = RunsWithCursorFormat(runs)

    async def ws(websocket: WebSocket) -> None:
        asked = websocket.query_params
        subprotocol = next(
            (s for s in websocket.scope["subprotocols"] if s == CURSOR_SUBPROTOCOL), None
        )
        wants_cursors = "cursor" in asked or "snapshot" in asked or subprotocol is not None
        await converse(
            websocket,
            setting,
            runs_with_cursor if wants_cursors else runs,
            frozenset(asked.getlist("channel") or [CHANNEL]),
            after=asked.get("cursor"),
            wants_snapshot="snapshot" in asked,
            subprotocol=subprotocol,
        )

    return [WebSocketRoute("/ws", ws)]
