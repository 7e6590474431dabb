"""
A WebSocket under uvicorn: frames go straight to the socket, and everything has a limit.

It subclasses parts of uvicorn that are not public, hence the check of its version. What it mends in
uvicorn 0.54: a client that stopped reading is never closed, and answers that a client does not read
are buffered without limit, and so are the fragments of a message.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import uvicorn
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import InvalidState
from websockets.frames import Frame

from brain.close_codes import CloseCode
from brain.errors import WrongUvicorn
from brain.message.rendering import Framing
from brain.session.token_bucket import TokenBucket
from brain.session.transport_protocol import Receiver
from brain.transport.direct import DirectSending
from brain.transport.limits import TransportLimits, stop
from brain.transport.websocket_frames import WEBSOCKET_FRAMING, close_reason

UVICORN = "0.54."

# The name in `scope["extensions"]` under which an endpoint finds a connection that it can adopt.
EXTENSION = "brain.frames"

# How long a client may take to read a close frame that ends a flood.
ABORT_SECONDS = 1.0
FLOODS = (CloseCode.RATE_LIMITED, CloseCode.MESSAGE_TOO_BIG)


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
    """See `DirectSending`, as for `send_now`."""
    send_now: Callable[[bytes], int]

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
        self._sending = DirectSending(self.transport)
        self.write, self.send_now = self._sending.write, self._sending.send_now

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._sending.end()
        # A running timer would keep all this in memory.
        stop(self._unread_timer)
        stop(self._end_timer)
        self._detach_receiver()
        # They refer to this, and would keep it until the garbage is collected.
        self.conn.parser.close()
        if hasattr(self, "scope"):
            cast(dict[str, Any], self.scope["extensions"]).pop(EXTENSION, None)

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
