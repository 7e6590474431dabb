"""What Mission Control registers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from starlette.routing import BaseRoute
from starlette.websockets import WebSocket

from brain.database.schema_files import Schema
from brain.description.routes import Conversation, DescribedWebSocketRoute, Right
from brain.errors import AccessUndecided
from brain.session.channel_session import SessionRequest
from brain.system import System
from brain.systems.mission_control import health
from brain.systems.mission_control.wire_format import MissionControlFormat
from brain.systems.shared_tables.schemas import AGENTS
from brain.transport.handshake import refuse
from brain.web.services import Services
from brain.web.websocket_endpoint import open_channels

CHANNELS = ("agents", "sessions")


CONVERSATION = Conversation(
    id="missionControl",
    summary="The status of agents, and the activity of their sessions",
    sends=MissionControlFormat.sent_models,
    receives=MissionControlFormat.received_models,
    right=Right.TOKEN,
)


class MissionControl(System):
    """Agents and sessions, for clients with a token."""

    name = "mission_control"
    summary = "the status of agents and the activity of sessions on / (WebSocket), and /health"
    schemas = (AGENTS, Schema("mission_control", Path(__file__).parent))

    def routes(self, services: Services) -> Sequence[BaseRoute]:
        wire_format = MissionControlFormat()

        async def connect(websocket: WebSocket) -> None:
            try:
                identity = await services.handshake.identify(websocket)
            except AccessUndecided as error:
                await refuse(websocket, error.http_status, str(error))
                return
            if identity.user is None:
                await refuse(websocket, 401, "a valid token is needed")
            else:
                request = SessionRequest(wire_format, CHANNELS)
                await open_channels(websocket, services, request, identity)

        return [DescribedWebSocketRoute("/", connect, CONVERSATION), *health.routes(services)]
