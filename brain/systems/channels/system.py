"""What the BRAiN WebSocket System registers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from starlette.routing import BaseRoute
from starlette.websockets import WebSocket

from brain.database.schema_files import Schema
from brain.description.routes import Conversation, DescribedWebSocketRoute, path_parameter
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


CONNECT = Conversation(
    id="channels",
    summary="Channels to subscribe to",
    sends=ChannelsFormat.sent_models,
    receives=ChannelsFormat.received_models,
)
CHANNEL = replace(
    CONNECT,
    id="channelsByName",
    summary="Channels to subscribe to; one at once",
    parameters=(path_parameter("name", "The channel that a client is subscribed to at once."),),
)


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
            DescribedWebSocketRoute("/ws/connect", connect, CONNECT),
            DescribedWebSocketRoute("/ws/channel/{name}", connect, CHANNEL),
            *ChannelsApi(services).routes(),
            static_route(
                "/static/websocket_test.html",
                STATIC / "websocket_test.html",
                id="getTestPage",
                summary="A page to try the channels",
                tag=self.name,
            ),
            static_route(
                "/static/websocket_test.js",
                STATIC / "websocket_test.js",
                "text/javascript",
                id="getTestScript",
                summary="The script of that page",
                tag=self.name,
            ),
        ]
