"""
HTTP under uvicorn, of which an answer may become a stream of server-sent events.

It relies on the same parts of uvicorn as `http.py`.
"""

from __future__ import annotations

from typing import Any, cast

from starlette.requests import ClientDisconnect
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from brain.session.transport_protocol import Receiver
from brain.transport.event_stream_connection import EventStreamConnection
from brain.transport.event_stream_frames import EVENT_STREAM, EVENT_STREAM_CHUNKS
from brain.transport.http import HttpProtocol

# The name in `scope["extensions"]` under which a response finds the protocol of its connection.
EXTENSION = "brain.event_stream"


class EventStreamProtocol(HttpProtocol):
    """
    Speaks HTTP for an ASGI application.

    A response that is a stream takes the connection over, as the transport of a session; then
    nothing of this is left.
    """

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._connection: EventStreamConnection | None = None
        self._is_taken_over = False
        self._is_stopping = False

    def connection(self) -> EventStreamConnection:
        """
        Return a transport for a session; the head of the answer is still to be sent.

        Raises `ClientDisconnect`.
        """
        cycle = self._running_cycle
        if cycle is None or self.transport.is_closing():
            raise ClientDisconnect
        cycle.keep_alive = False
        is_chunked = cycle.scope["http_version"] == "1.1"
        if not is_chunked:
            cycle.chunked_encoding = False  # uvicorn sends chunks to any client
        self._connection = EventStreamConnection(
            self.transport,
            self._limits,
            self.connections,
            EVENT_STREAM_CHUNKS if is_chunked else EVENT_STREAM,
        )
        return self._connection

    def take_over(self, connection: EventStreamConnection, receiver: Receiver) -> None:
        """Let `connection` report to `receiver` from now on."""
        self._is_taken_over = True
        if not connection.adopt(receiver, is_paused=self.flow.write_paused):
            return
        # What follows the request is not answered, and has no deadline.
        self._stop_timers()
        self.flow.resume_reading()
        self.connections.discard(self)
        self._connection = None
        self._end_cycles()
        if self._is_stopping:
            connection.shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._connection is not None:
            self._connection.connection_lost(exc)

    def shutdown(self) -> None:
        self._is_stopping = True
        super().shutdown()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        cast(dict[str, Any], cycle.scope)["extensions"] = {EXTENSION: self}
        super()._start_asgi_task(cycle, app)

    def _end_unfinished(self) -> None:
        if not self._is_taken_over:
            super()._end_unfinished()
