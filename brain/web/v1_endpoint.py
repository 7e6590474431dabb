"""The WebSocket endpoint `/ws/v1`, which speaks brain.v1."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.websockets import WebSocket

from brain.description.routes import Conversation, DescribedWebSocketRoute
from brain.errors import AccessUndecided
from brain.message.v1_format import PROTOCOL, V1Format
from brain.session.admission import Admitted
from brain.session.topic_session import TopicSession
from brain.transport.handshake import refuse
from brain.web.services import Services

CONVERSATION = Conversation(
    id="v1",
    summary="brain.v1: subscriptions by frames, rows with operation, key and transaction",
    description="The subprotocol is `brain.v1`, if a client offers it.",
    sends=V1Format.sent_models,
    receives=V1Format.received_models,
)


def routes(services: Services) -> list[DescribedWebSocketRoute]:
    return [DescribedWebSocketRoute("/ws/v1", Endpoint(services).serve, CONVERSATION)]


@dataclass(frozen=True)
class Endpoint:
    """Serves `/ws/v1`; clients subscribe by frames."""

    services: Services

    async def serve(self, websocket: WebSocket) -> None:
        services = self.services
        changes = services.sessions.registry.changes
        try:
            identity = await services.handshake.identify(websocket)
            access = await services.authority.read_access(identity, ())
        except AccessUndecided as error:
            await refuse(websocket, error.http_status, str(error))
            return

        def session_for(admitted: Admitted) -> TopicSession:
            sources = websocket.state.sources
            return TopicSession(admitted, services.sessions, sources, access, changes)

        offered = websocket.scope["subprotocols"]
        subprotocol = PROTOCOL if PROTOCOL in offered else None
        await services.handshake.accept(websocket, session_for, identity, subprotocol)
