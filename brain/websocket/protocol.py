"""
The connection of a client under uvicorn: frames straight to the transport, and bounds on all.

It stands on parts of uvicorn that are not public, hence the check of its version. What it mends in
uvicorn 0.54: a client that stopped reading is never closed, what a client makes the server say
without reading it is kept without bound, and so are the fragments of a message; and a handshake may
take for ever.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import InvalidState
from websockets.frames import Frame

from brain.errors import WrongUvicorn
from brain.websocket.allowance import Allowance
from brain.websocket.outlet import EXTENSION, Hearer

UVICORN = "0.54."

MOST_HEAD_BYTES = 64 * 1024

GOODBYE_SECONDS = 1.0

NOT_UTF_8, TOO_LARGE, TOO_FAST = 1007, 1009, 4029


@dataclass(frozen=True)
class ConnectionLimits:
    """What one client may do to its connection."""

    handshake_seconds: float = 10.0
    """How long it may take to say what it wants."""
    unread_seconds: float = 60.0
    """How long it may leave unread what was written to it."""
    unread_bytes: int = 1024 * 1024
    """How much may be unread when it makes the server say more."""
    close_seconds: float = 10.0
    """How long it may take to answer a goodbye."""
    frames_per_second: float = 100.0
    """How much it may say; twice as much at once."""
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

    From then on it is spoken to directly: the endpoint may return, and there is neither a task nor
    a queue for this client any more.
    """

    write: Callable[[bytes], None]
    """Sends finished frames; the transport's own, for a call less each time."""
    send_now: Callable[[bytes], int]
    """Has the kernel take of finished frames what it takes at once; the socket's own."""

    def __init__(self, *arguments: Any, limits: ConnectionLimits, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._limits = limits
        self._allowance = Allowance(limits.frames_per_second)
        self._hearer: Hearer | None = None
        self._is_adopted = False
        self._unread_timer: asyncio.TimerHandle | None = None
        self._end_timer: asyncio.TimerHandle | None = None

    def adopt(self, hearer: Hearer) -> None:
        """Tell `hearer` everything from the next turn of the event loop on."""
        self._hearer, self._is_adopted = hearer, True
        if not self.writable.is_set():
            hearer.pause()
        # What it took to shake hands, some kilobytes, is not needed any more.
        del self.scope, self.request, self.response
        self.loop.call_soon(self._tell_what_came_before)

    def close(self, code: int, reason: str) -> None:
        """Say goodbye, and cut the connection if there is no answer."""
        self._say_that_it_left()
        if self.close_sent or self.transport.is_closing():
            return
        try:
            self.conn.send_close(code, reason)
        except InvalidState:
            self.cut()
            return
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.close_timer = self.loop.call_later(self._limits.close_seconds, self.cut)

    def cut(self) -> None:
        """End the connection at once, whatever is unsent."""
        self.transport.abort()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        # It says so as soon as the kernel takes no more: until then nothing waits in the transport
        # that could be overtaken.
        self.transport.set_write_buffer_limits(0)
        self.write = self.transport.write
        opened = self.transport.get_extra_info("socket")
        self._socket = socket.socket(opened.family, opened.type, opened.proto, opened.fileno())
        self.send_now = self._socket.send

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._socket.detach()  # the transport closes it after this
        # A timer that went on would keep all this in memory.
        stop(self._unread_timer)
        stop(self._end_timer)
        self._say_that_it_left()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.handshake_exc is not None and not self.handshake_initiated:
            # Where a line of the head is too long, uvicorn neither answers nor hangs up.
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.transport.close()
            self._end_in(GOODBYE_SECONDS)

    def pause_writing(self) -> None:
        super().pause_writing()
        stop(self._unread_timer)
        self._unread_timer = self.loop.call_later(self._limits.unread_seconds, self.cut)
        if self._hearer is not None:
            self._hearer.pause()

    def resume_writing(self) -> None:
        super().resume_writing()
        stop(self._unread_timer)
        if self._hearer is not None:
            self._hearer.drain()

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

    def handle_text(self, event: Frame) -> None:
        if self._may_speak():
            super().handle_text(event)

    def handle_bytes(self, event: Frame) -> None:
        if self._may_speak():
            super().handle_bytes(event)

    def handle_cont(self, event: Frame) -> None:
        if not self._may_speak():
            return
        if len(self.frames) >= self._limits.fragments:
            self._cut_off(TOO_LARGE, "too many fragments")
            return
        super().handle_cont(event)

    def handle_ping(self) -> None:
        if self._may_speak():
            super().handle_ping()
            self._cut_if_unread()

    def handle_pong(self, event: Frame) -> None:
        if self._may_speak():
            super().handle_pong(event)

    def handle_close(self, event: Frame) -> None:
        self._say_that_it_left()  # after a goodbye there is nothing more to be said
        super().handle_close(event)
        # Without this a client that says goodbye and reads nothing would stay for ever.
        self._end_in(self._limits.close_seconds)

    def send_receive_event_to_app(self) -> None:
        if not self._is_adopted:
            super().send_receive_event_to_app()
            return
        data = b"".join(self.frames)
        self.frames = []
        if self.curr_msg_data_type == "bytes":
            self._tell(data)
            return
        try:
            text = data.decode()
        except UnicodeDecodeError:
            self.close(NOT_UTF_8, "not UTF-8")
        else:
            self._tell(text)

    def handle_parser_exception(self) -> None:
        self._say_that_it_left()
        super().handle_parser_exception()

    def shutdown(self) -> None:
        hearer = self._hearer
        self._say_that_it_left()
        if hearer is not None and not self.close_sent:
            # uvicorn has one code for all.
            self.conn.send_close(hearer.going_away_code)
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.close_sent = True
        super().shutdown()

    def keepalive_timeout(self) -> None:
        self._say_that_it_left()
        super().keepalive_timeout()
        # uvicorn would wait until the client has read everything; the goodbye it may have.
        self._end_in(GOODBYE_SECONDS)

    def _tell_what_came_before(self) -> None:
        while not self.queue.empty():
            event = self.queue.get_nowait()
            if event["type"] == "websocket.receive":
                text = event.get("text")
                self._tell(event.get("bytes") or b"" if text is None else text)
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        if self.disconnected:
            self._say_that_it_left()

    def _tell(self, message: str | bytes) -> None:
        if self._hearer is not None:
            self._hearer.hear(message)
            self._cut_if_unread()

    def _may_speak(self) -> bool:
        if self.close_sent:
            return False
        if not self._allowance.take(self.loop.time()):
            self._cut_off(TOO_FAST, "too many messages")
            return False
        return True

    def _cut_off(self, code: int, reason: str) -> None:
        """Say goodbye to a client that goes on and on, and listen no longer."""
        self.close(code, reason)
        self.transport.pause_reading()
        self._end_in(GOODBYE_SECONDS)

    def _cut_if_unread(self) -> None:
        if self.transport.get_write_buffer_size() > self._limits.unread_bytes:
            self.cut()

    def _say_that_it_left(self) -> None:
        hearer, self._hearer = self._hearer, None
        if hearer is not None:
            hearer.leave()

    def _end_in(self, seconds: float) -> None:
        """Cut the connection unless it has ended by then."""
        if not self.disconnected:
            stop(self._end_timer)
            self._end_timer = self.loop.call_later(seconds, self.cut)


class HttpProtocol(HttpToolsProtocol):
    """Speaks HTTP, with clients that say what they want in good time and in a few words."""

    def __init__(self, *arguments: Any, limits: ConnectionLimits, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._limits = limits
        self._head_timer: asyncio.TimerHandle | None = None
        self._head_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast(asyncio.Transport, transport))
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_head()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        awaited = self._head_timer
        super().data_received(data)
        if awaited is not None and self._head_timer is awaited:  # it was head, and nothing else
            self._head_bytes += len(data)
            if self._head_bytes > MOST_HEAD_BYTES:
                self.transport.abort()

    def on_message_begin(self) -> None:
        if self._head_timer is None:  # it is not the first request
            self._await_head()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._end_head()
        super().on_headers_complete()

    def _await_head(self) -> None:
        self._head_bytes = 0
        self._head_timer = self.loop.call_later(
            self._limits.handshake_seconds, self.transport.abort
        )

    def _end_head(self) -> None:
        stop(self._head_timer)
        self._head_timer = None


def stop(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
