"""
Server-sent events under uvicorn: an HTTP answer without an end, written straight to the socket.

It relies on the same parts of uvicorn as `http.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from starlette.requests import ClientDisconnect
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from brain.close_codes import CloseCode
from brain.session.transport_protocol import Receiver
from brain.transport.direct import DirectSending
from brain.transport.event_stream_frames import (
    EVENT_STREAM,
    EVENT_STREAM_CHUNKS,
    EventStreamFraming,
)
from brain.transport.http import MOST_HEAD_BYTES, HttpProtocol
from brain.transport.limits import stop

# The name in `scope["extensions"]` under which a response finds a connection that it can adopt.
EXTENSION = "brain.event_stream"

GOING_AWAY = "Brain stops or restarts"


class EventStreamProtocol(HttpProtocol):
    """
    Speaks HTTP for an ASGI application, until a response adopts the connection.

    From then on it is the transport of a session, as a `WebSocketProtocol` is. The answer ends with
    the connection, so requests that a client has sent behind that one are not answered: RFC 9112,
    section 9.6.
    """

    framing: EventStreamFraming
    write: Callable[[bytes], None]
    """See `DirectSending`, as for `send_now`."""
    send_now: Callable[[bytes], int]

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._sending: DirectSending | None = None
        self._receiver: Receiver | None = None
        self._is_adopted = False
        self._is_stopping = False
        self._end_timer: asyncio.TimerHandle | None = None
        self._unexpected_bytes = 0
        """Received since the connection was adopted."""

    def begin(self) -> None:
        """
        Become a transport; the head of the answer is still to be sent.

        Raises `ClientDisconnect`.
        """
        cycle = self._running_cycle
        if cycle is None or self.transport.is_closing():
            raise ClientDisconnect
        cycle.keep_alive = False
        is_chunked = cycle.scope["http_version"] == "1.1"
        if not is_chunked:
            cycle.chunked_encoding = False  # uvicorn sends chunks to any client
        self.framing = EVENT_STREAM_CHUNKS if is_chunked else EVENT_STREAM
        self._sending = DirectSending(self.transport)
        self.write, self.send_now = self._sending.write, self._sending.send_now

    def adopt(self, receiver: Receiver) -> None:
        """Report to `receiver` from now on."""
        self._is_adopted = True
        if self.transport.is_closing():
            receiver.connection_lost()
            return
        self._receiver = receiver
        if self.flow.write_paused:
            receiver.pause_writing()
        # What follows the request is not answered, and has no deadline.
        self._end_head()
        self._end_body()
        self.pipeline.clear()
        self.flow.resume_reading()
        # What the request took, some kilobytes, is not needed any more.
        self._running_cycle = None
        self.cycle = self.scope = self.headers = None  # type: ignore[assignment]
        if self._is_stopping:
            self.shutdown()

    def close(self, code: CloseCode, reason: str) -> None:
        """Send the event that says why, and the end of the answer; abort if it is not read."""
        self._detach_receiver()
        if not self.transport.is_closing():
            self.transport.write(self.framing.end(code, reason))
            self.transport.close()
            self._end_timer = self.loop.call_later(self._limits.close_seconds, self.transport.abort)

    # What the event loop calls.

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        stop(self._end_timer)
        if self._sending is not None:
            self._sending.end()
        self._detach_receiver()

    def data_received(self, data: bytes) -> None:
        if not self._is_adopted:
            super().data_received(data)
            return
        self._unexpected_bytes += len(data)
        if self._unexpected_bytes > MOST_HEAD_BYTES:
            self.transport.abort()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._receiver is not None:
            self._receiver.pause_writing()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._receiver is not None:
            self._receiver.resume_writing()

    # What uvicorn calls.

    def shutdown(self) -> None:
        self._is_stopping = True
        if self._receiver is not None:
            self.close(self._receiver.going_away_code, GOING_AWAY)
        else:
            super().shutdown()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        cast(dict[str, Any], cycle.scope)["extensions"] = {EXTENSION: self}
        super()._start_asgi_task(cycle, app)

    def _end_unfinished(self) -> None:
        if not self._is_adopted:
            super()._end_unfinished()

    def _detach_receiver(self) -> None:
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.connection_lost()
