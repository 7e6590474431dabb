"""
A WebSocket under uvicorn: frames go straight to the socket, and everything has a limit.

It subclasses parts of uvicorn that are not public, hence the check of its version. What it mends in
uvicorn 0.54: a client that stopped reading is never closed, answers that a client does not read are
buffered without limit, and so are the fragments of a message; a handshake may take for ever, and so
may the time between two requests; trailers count as headers, and neither they nor the requests that
wait have a limit; and a client that vanishes while several requests wait is logged as an error.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import InvalidState
from websockets.frames import Frame

from brain.close_codes import CloseCode
from brain.errors import WrongUvicorn
from brain.message.rendering import Framing
from brain.session.token_bucket import TokenBucket
from brain.session.transport_protocol import Receiver
from brain.transport.websocket_frames import WEBSOCKET_FRAMING, close_reason

UVICORN = "0.54."

# The name in `scope["extensions"]` under which an endpoint finds a connection that it can adopt.
EXTENSION = "brain.frames"

MOST_HEAD_BYTES = 64 * 1024
# Of one connection: those that came before the answer to an earlier one.
MOST_WAITING_REQUESTS = 100

# How long a client may take to read a close frame that ends a flood.
ABORT_SECONDS = 1.0
FLOODS = (CloseCode.RATE_LIMITED, CloseCode.MESSAGE_TOO_BIG)


@dataclass(frozen=True)
class TransportLimits:
    """What one client may do to its connection, whatever the session."""

    handshake_timeout_seconds: float
    """How long it may take to send the head of a request, and then the body."""
    unread_timeout_seconds: float
    """How long it may leave unread what was written to it."""
    close_seconds: float
    """How long it may take to answer a close frame."""
    frames_per_second: float
    """Rate limit of pings, pongs and fragments; burst of twice that. A session limits messages."""
    unread_bytes: int = 1024 * 1024
    """How much may be unread when the client makes the server answer."""
    fragments: int = 128
    """Of one message."""


def require_uvicorn() -> None:
    """Raise `WrongUvicorn` unless it is the version that this was written for."""
    if not uvicorn.__version__.startswith(UVICORN):
        raise WrongUvicorn(
            f"uvicorn {uvicorn.__version__} is installed, but Brain needs {UVICORN}x: "
            f"pip install 'uvicorn~={UVICORN}0'"
        )


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """
    Speaks WebSocket for an ASGI application, until an endpoint adopts the connection.

    From then on it is the transport of a session: the endpoint may return, and this client has
    neither a task nor a queue any more.
    """

    framing: Framing = WEBSOCKET_FRAMING
    write: Callable[[bytes], None]
    """Writes finished frames: the asyncio transport's own method, which saves a call each time."""
    send_now: Callable[[bytes], int]
    """Sends what the kernel takes at once: the socket's own method."""

    def __init__(self, *arguments: Any, limits: TransportLimits, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._limits = limits
        self._control_frames = TokenBucket(limits.frames_per_second)
        self._receiver: Receiver | None = None
        self._is_adopted = False
        self._unread_timer: asyncio.TimerHandle | None = None
        self._end_timer: asyncio.TimerHandle | None = None

    def adopt(self, receiver: Receiver) -> None:
        """Give `receiver` every message from the next turn of the event loop on."""
        self._receiver, self._is_adopted = receiver, True
        if not self.writable.is_set():
            receiver.pause_writing()
        # What the handshake took, some kilobytes, is not needed any more.
        del self.scope, self.request, self.response
        self.loop.call_soon(self._deliver_queued)

    def close(self, code: CloseCode, reason: str) -> None:
        """Send a close frame, and abort the connection if there is no answer."""
        self._detach_receiver()
        if self.close_sent or self.transport.is_closing():
            return
        try:
            self.conn.send_close(code, close_reason(reason))
        except InvalidState:
            self.abort()
            return
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.close_timer = self.loop.call_later(self._limits.close_seconds, self.abort)
        if code in FLOODS:
            # Such a client goes on sending, and its answer would come after all of that.
            self.transport.pause_reading()
            self._abort_in(ABORT_SECONDS)

    def abort(self) -> None:
        """End the connection at once, whatever is unsent."""
        self.transport.abort()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        # It pauses writing as soon as the kernel takes no more: until then nothing is buffered that
        # `send_now` could overtake.
        self.transport.set_write_buffer_limits(0)
        self.write = self.transport.write
        opened = self.transport.get_extra_info("socket")
        self._socket = socket.socket(opened.family, opened.type, opened.proto, opened.fileno())
        self.send_now = self._socket.send

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._socket.detach()  # the transport closes it after this
        # A running timer would keep all this in memory.
        stop(self._unread_timer)
        stop(self._end_timer)
        self._detach_receiver()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.handshake_exc is not None and not self.handshake_initiated:
            # Where a line of the head is too long, uvicorn neither answers nor closes.
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.transport.close()
            self._abort_in(ABORT_SECONDS)

    def pause_writing(self) -> None:
        super().pause_writing()
        stop(self._unread_timer)
        self._unread_timer = self.loop.call_later(self._limits.unread_timeout_seconds, self.abort)
        if self._receiver is not None:
            self._receiver.pause_writing()

    def resume_writing(self) -> None:
        super().resume_writing()
        stop(self._unread_timer)
        if self._receiver is not None:
            self._receiver.resume_writing()

    # What uvicorn calls.

    def handle_connect(self, event: Any) -> None:
        super().handle_connect(event)
        if hasattr(self, "scope"):  # it was not refused
            cast(dict[str, Any], self.scope["extensions"])[EXTENSION] = self

    async def run_asgi(self) -> None:
        """Run the application; a connection that it has adopted outlives it."""
        try:
            await self.app(self.scope, self.receive, self.send)
        except ClientDisconnected:
            pass
        except BaseException:
            self.logger.exception("the application failed")
            self.send_500_response()
            self._is_adopted = False
        if not self._is_adopted and self.close_timer is None:
            self.transport.close()

    def handle_cont(self, event: Frame) -> None:
        if not self._is_within_rate():
            return
        if len(self.frames) >= self._limits.fragments:
            self.close(CloseCode.MESSAGE_TOO_BIG, "too many fragments")
            return
        super().handle_cont(event)

    def handle_ping(self) -> None:
        if self._is_within_rate():
            super().handle_ping()
            if self.transport.get_write_buffer_size() > self._limits.unread_bytes:
                self.abort()

    def handle_pong(self, event: Frame) -> None:
        if self._is_within_rate():
            super().handle_pong(event)

    def handle_close(self, event: Frame) -> None:
        self._detach_receiver()  # after a close frame nothing may be sent
        super().handle_close(event)
        # Without this a client that sends a close frame and reads nothing would stay for ever.
        self._abort_in(self._limits.close_seconds)

    def send_receive_event_to_app(self) -> None:
        if not self._is_adopted:
            super().send_receive_event_to_app()
            return
        data = b"".join(self.frames)
        self.frames = []
        if self.curr_msg_data_type == "bytes":
            self._deliver(data)
            return
        try:
            text = data.decode()
        except UnicodeDecodeError:
            self.close(CloseCode.INVALID_TEXT, "not UTF-8")
        else:
            self._deliver(text)

    def handle_parser_exception(self) -> None:
        self._detach_receiver()
        if self.conn.close_sent is None:
            # It came before the answer to the handshake, and uvicorn knows no code to close with.
            self.abort()
            return
        super().handle_parser_exception()

    def shutdown(self) -> None:
        receiver = self._receiver
        self._detach_receiver()
        if receiver is not None and not self.close_sent:
            # uvicorn has one code for all.
            self.conn.send_close(receiver.going_away_code)
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.close_sent = True
        super().shutdown()

    def keepalive_timeout(self) -> None:
        self._detach_receiver()
        super().keepalive_timeout()
        # uvicorn would wait until the client has read everything.
        self._abort_in(ABORT_SECONDS)

    def _deliver_queued(self) -> None:
        """Deliver what arrived before the connection was adopted."""
        while not self.queue.empty():
            event = self.queue.get_nowait()
            if event["type"] == "websocket.receive":
                text = event.get("text")
                self._deliver(event.get("bytes") or b"" if text is None else text)
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        if self.disconnected:
            self._detach_receiver()

    def _deliver(self, message: str | bytes) -> None:
        if self._receiver is not None:
            self._receiver.message_received(message)
            if self.transport.get_write_buffer_size() > self._limits.unread_bytes:
                self.abort()

    def _is_within_rate(self) -> bool:
        """Count a frame that no session sees; close the connection if there are too many."""
        if self.close_sent:
            return False
        if self._control_frames.take(self.loop.time()) < 0:
            self.close(CloseCode.RATE_LIMITED, "too many frames")
            return False
        return True

    def _detach_receiver(self) -> None:
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.connection_lost()

    def _abort_in(self, seconds: float) -> None:
        """Abort the connection unless it has ended by then."""
        if not self.disconnected:
            stop(self._end_timer)
            self._end_timer = self.loop.call_later(seconds, self.abort)


class HttpProtocol(HttpToolsProtocol):
    """Speaks HTTP, and limits the time of a request and of reading what is answered."""

    def __init__(self, *arguments: Any, limits: TransportLimits, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._limits = limits
        self._head_timer: asyncio.TimerHandle | None = None
        self._body_timer: asyncio.TimerHandle | None = None
        self._unread_timer: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._bodyless_bytes = 0
        """Those received since the head of the request, or since the last piece of its body."""
        self._running_cycle: RequestResponseCycle | None = None
        """The request that the application has; later ones wait for its answer."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast(asyncio.Transport, transport))
        # What the kernel takes no more of is unread: all of it, and not what exceeds a buffer.
        self.transport.set_write_buffer_limits(0)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_head()
        self._end_body()
        stop(self._unread_timer)
        # uvicorn says so only to the request that came last, and the application would go on
        # writing the answer to an earlier one.
        if (cycle := self._running_cycle) is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()
        self.pipeline.clear()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        awaited = self._head_timer
        self._bodyless_bytes += len(data)
        super().data_received(data)
        if self._body_timer is not None and self._bodyless_bytes > MOST_HEAD_BYTES:
            self.transport.abort()  # trailers or the extension of a chunk, without an end
        if awaited is None and self._is_idle():
            # Such as an empty line: uvicorn has stopped its timer, and no request begins.
            self._await_head()
            awaited = self._head_timer
        if awaited is not None and self._head_timer is awaited:  # it was head, and nothing else
            self._head_bytes += len(data)
            if self._head_bytes > MOST_HEAD_BYTES:
                self.transport.abort()

    def on_message_begin(self) -> None:
        if self._head_timer is None:  # it is not the first request
            self._await_head()
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        # uvicorn would append a trailer to the headers, and Authorization and Host must never be
        # trailers: RFC 9110, section 6.5.1.
        if self._head_timer is not None:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._end_head()
        if len(self.pipeline) >= MOST_WAITING_REQUESTS:
            self.transport.abort()
            return
        self._bodyless_bytes = 0
        self._body_timer = self._abort_in_time()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._bodyless_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._end_body()
        super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        self._end_head()
        self._end_body()
        if self._is_answering() or self.transport.get_write_buffer_size():
            # An answer would end up among the frames. A client has to wait for it: RFC 6455,
            # section 4.1.
            self.transport.abort()
            return
        super().handle_websocket_upgrade()

    def pause_writing(self) -> None:
        super().pause_writing()
        stop(self._unread_timer)
        self._unread_timer = self.loop.call_later(
            self._limits.unread_timeout_seconds, self.transport.abort
        )

    def resume_writing(self) -> None:
        super().resume_writing()
        stop(self._unread_timer)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        async def run(scope: Scope, receive: Receive, send: Send) -> None:
            await cast(ASGIApp, app)(scope, receive, send)
            if cycle.response_started and not cycle.response_complete:
                # The client reads too slowly. uvicorn would log it as an error, each time.
                cycle.disconnected = True
                self.transport.abort()

        self._running_cycle = cycle
        super()._start_asgi_task(cycle, cast(ASGI3Application, run))

    def _is_answering(self) -> bool:
        return self._running_cycle is not None and not self._running_cycle.response_complete

    def _is_idle(self) -> bool:
        """Return True between two requests: the last one is complete, and so is its answer."""
        return (
            self._head_timer is None
            and self._body_timer is None
            and not self._is_answering()
            and self.transport.get_protocol() is self
        )

    def _await_head(self) -> None:
        self._head_bytes = 0
        self._head_timer = self._abort_in_time()

    def _abort_in_time(self) -> asyncio.TimerHandle:
        return self.loop.call_later(self._limits.handshake_timeout_seconds, self.transport.abort)

    def _end_head(self) -> None:
        stop(self._head_timer)
        self._head_timer = None

    def _end_body(self) -> None:
        stop(self._body_timer)
        self._body_timer = None


def stop(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
