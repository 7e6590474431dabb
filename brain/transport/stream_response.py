"""The answer to a request for a stream: its connection becomes the transport of a session."""

from __future__ import annotations

from collections.abc import Callable

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from brain.session.connection_limiter import CountedConnection
from brain.session.transport_protocol import NewSession, Transport
from brain.transport.asgi import AsgiEventStream
from brain.transport.event_stream import EXTENSION, EventStreamProtocol
from brain.transport.event_stream_connection import EventStreamConnection

HEADERS = {
    "cache-control": "no-cache, no-transform",
    "x-accel-buffering": "no",  # nginx would collect events
}
MEDIA_TYPE = "text/event-stream"


def head_response() -> Response:
    """Return the answer to a HEAD request for a stream."""
    response = Response(headers=HEADERS, media_type=MEDIA_TYPE)
    del response.headers["content-length"]
    return response


class EventStreamResponse(Response):
    """Opens the session that `session_for` makes, and lets it send events."""

    def __init__(
        self,
        session_for: Callable[[Transport], NewSession],
        counted: CountedConnection,
        unread_timeout_seconds: float,
    ) -> None:
        """`counted` is released if no session is opened."""
        super().__init__(headers=HEADERS, media_type=MEDIA_TYPE)
        del self.headers["content-length"]
        self._session_for = session_for
        self._counted = counted
        self._unread_timeout_seconds = unread_timeout_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """
        Answer a request.

        Under Brain's own protocol class this returns at once: the connection calls the session.
        Under any other server it serves the connection until its end.
        """
        is_open = False
        try:
            protocol: EventStreamProtocol | None = scope.get("extensions", {}).get(EXTENSION)
            transport: EventStreamConnection | AsgiEventStream
            if protocol is None:
                transport = AsgiEventStream(receive, send, self._unread_timeout_seconds)
            else:
                transport = protocol.connection()
            head = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
            await send(head)
            transport.write(transport.framing.begin())
            session = self._session_for(transport)
            session.open()
            if isinstance(transport, AsgiEventStream):
                await transport.run(session)
            elif protocol is not None:
                protocol.take_over(transport, session)
                is_open = True
        finally:
            if not is_open:
                self._counted.release()
