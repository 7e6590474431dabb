"""How a connection begins: a client is admitted and handed to a session, or refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.websockets import WebSocket

from brain.auth.identity import Identity
from brain.auth.origin import REFUSED
from brain.auth.token_verifier import token_in
from brain.errors import TooManyConnections
from brain.session.admission import Admission, Admitted
from brain.session.connection_limiter import TOO_MANY_TOGETHER
from brain.session.transport_protocol import NewSession, Transport
from brain.transport.asgi import AsgiWebSocket
from brain.transport.refusal_counts import note_refusal, quota_reason
from brain.transport.stream_response import EventStreamResponse
from brain.transport.websocket import EXTENSION, WebSocketProtocol

RETRY_AFTER_SECONDS = 5


@dataclass(frozen=True, slots=True)
class Handshake:
    """Answers WebSocket handshakes, and requests for a stream."""

    admission: Admission
    unread_timeout_seconds: float

    async def identify(self, websocket: WebSocket) -> Identity:
        """Return who a client is, by the token of its handshake."""
        subprotocols = websocket.scope.get("subprotocols", ())
        token = token_in(websocket.headers, subprotocols, websocket.query_params)
        return await self.admission.identify(token, websocket)

    async def accept(
        self,
        websocket: WebSocket,
        session_for: Callable[[Admitted], NewSession],
        identity: Identity,
        subprotocol: str | None = None,
    ) -> None:
        """
        Accept a connection and open the session that `session_for` makes; refuse it otherwise.

        Under Brain's own protocol class this returns at once: the connection calls the session.
        Under any other server it serves the connection until its end.
        """
        origin, host = websocket.headers.get("origin"), websocket.headers.get("host")
        if not self.admission.allows_origin(origin, host):
            await refuse(websocket, 403, REFUSED, "origin")
            return
        address = websocket.client.host if websocket.client else ""
        try:
            counted = self.admission.admit(address, identity)
        except TooManyConnections as refusal:
            await refuse(websocket, refusal.http_status, str(refusal), quota_reason(refusal))
            return
        is_taken_over = False
        try:
            await websocket.accept(subprotocol)
            protocol: WebSocketProtocol | None = websocket.scope.get("extensions", {}).get(
                EXTENSION
            )
            if protocol is None:
                transport = AsgiWebSocket(websocket, self.unread_timeout_seconds)
                session = session_for(Admitted(transport, identity, counted, address))
                session.open()
                await transport.run(session)
            else:
                connection = protocol.connection()
                session = session_for(Admitted(connection, identity, counted, address))
                session.open()
                protocol.take_over(connection, session)
                is_taken_over = True
        finally:
            if not is_taken_over:
                counted.release()

    def stream(
        self,
        request: Request,
        session_for: Callable[[Admitted], NewSession],
        identity: Identity,
        evaluated: int,
    ) -> Response:
        """
        Return the answer by which the session that `session_for` makes sends events.

        `evaluated` is how many values its filter compares.

        Raises `HTTPException`.
        """
        address = request.client.host if request.client else ""
        try:
            counted = self.admission.admit(address, identity)
            if not counted.may_evaluate(evaluated):
                counted.release()
                raise TooManyConnections(TOO_MANY_TOGETHER, 429, "filters")
        except TooManyConnections as refusal:
            note_refusal(request.scope, refusal.http_status, quota_reason(refusal))
            headers = {"retry-after": str(RETRY_AFTER_SECONDS)}
            raise HTTPException(refusal.http_status, str(refusal), headers) from None

        def session_on(transport: Transport) -> NewSession:
            return session_for(Admitted(transport, identity, counted, address))

        return EventStreamResponse(session_on, counted, self.unread_timeout_seconds)


async def refuse(
    websocket: WebSocket, status_code: int, reason: str, kind: str | None = None
) -> None:
    """Answer the handshake with an HTTP error, and count it: as one of a kind, or of its status."""
    note_refusal(websocket.scope, status_code, kind)
    headers = {"retry-after": str(RETRY_AFTER_SECONDS)} if status_code in (429, 503) else {}
    if status_code == 401:
        headers["www-authenticate"] = "Bearer"
    await websocket.send_denial_response(PlainTextResponse(f"{reason}\n", status_code, headers))
