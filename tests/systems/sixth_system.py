"""A system as another package would add it: one wire format, one route."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from pydantic import RootModel
from starlette.routing import BaseRoute
from starlette.websockets import WebSocket

from brain.description.routes import Conversation, DescribedWebSocketRoute, path_parameter
from brain.message.commands import Command, Reply
from brain.message.cursor import Cursor
from brain.message.event import Event
from brain.message.wire_format import WireFormat
from brain.session.channel_session import SessionRequest
from brain.system import System
from brain.web.services import Services
from brain.web.websocket_endpoint import open_channels


class Short(RootModel[str]):
    """The operation, and the key of the row."""


class ShortFormat(WireFormat):
    """Renders only the operation and the key of an event."""

    name = "short"
    sent_models = (Short,)

    def render(self, event: Event) -> str | None:
        return f"{event.operation.name} {event.key}"

    def receive(self, text: str, now: datetime, cursor: Callable[[], Cursor]) -> Sequence[Command]:
        return [Reply(f"not understood: {text}")]


class Sixth(System):
    name = "sixth"
    summary = "operations and keys on /ws/short/{channel}"

    def routes(self, services: Services) -> Sequence[BaseRoute]:
        async def connect(websocket: WebSocket) -> None:
            request = SessionRequest(ShortFormat(), [websocket.path_params["channel"]])
            await open_channels(websocket, services, request)

        conversation = Conversation(
            id="short",
            summary="Operations and keys",
            sends=ShortFormat.sent_models,
            parameters=(path_parameter("channel", "The channel."),),
        )
        return [DescribedWebSocketRoute("/ws/short/{channel}", connect, conversation)]
