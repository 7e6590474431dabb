"""What the BRAiN WebSocket System registers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from starlette.routing import BaseRoute, WebSocketRoute
from starlette.websockets import WebSocket

from brain.database.migrations import Schema
from brain.message.matching import Topic
from brain.session.channel_session import SessionRequest
from brain.system import System
from brain.systems.channels.api import ChannelsApi
from brain.systems.channels.wire_format import EVERYONE, ChannelsFormat
from brain.systems.shared_tables.schemas import AGENTS, TASKS
from brain.web.pages import static_route
from brain.web.services import Services
from brain.web.websocket_endpoint import open_channels

STATIC = Path(__file__).parent / "static"


class Channels(System):
    """Channels to subscribe to."""

    name = "channels"
    summary = "channels to subscribe to on /ws/connect and /ws/channel/{name}, and /api/ws/…"
    schemas = (TASKS, AGENTS, Schema("channels", Path(__file__).parent))

    def routes(self, services: Services) -> Sequence[BaseRoute]:
        wire_format = ChannelsFormat()
        everyone = frozenset({Topic(EVERYONE)})

        async def connect(websocket: WebSocket) -> None:
            names = [websocket.path_params["name"]] if websocket.path_params else ()
            request = SessionRequest(wire_format, names, implied=everyone, is_listed=True)
            await open_channels(websocket, services, request)

        return [
            WebSocketRoute("/ws/connect", connect),
            WebSocketRoute("/ws/channel/{name}", connect),
            *ChannelsApi(services).routes(),
            static_route("/static/websocket_test.html", STATIC / "websocket_test.html"),
            static_route(
                "/static/websocket_test.js", STATIC / "websocket_test.js", "text/javascript"
            ),
        ]
