"""
A WebSocket under uvicorn, until its handshake is over.

It subclasses parts of uvicorn that are not public, hence the check of its version.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, cast

import uvicorn
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from brain.errors import WrongUvicorn
from brain.log_events import HANDSHAKE_FAILED
from brain.session.transport_protocol import Receiver
from brain.transport.limits import TransportLimits, stop
from brain.transport.pings import Pings
from brain.transport.websocket_connection import (
    ABORT_SECONDS,
    WebSocketConnection,
)

UVICORN = "0.54."

# The name in `scope["extensions"]` under which an endpoint finds the protocol of a connection.
EXTENSION = "brain.frames"


def require_uvicorn() -> None:
    """Raise `WrongUvicorn` unless it is the version that this was written for."""
    if not uvicorn.__version__.startswith(UVICORN):
        raise WrongUvicorn(
            f"uvicorn {uvicorn.__version__} is installed, but Brain needs {UVICORN}x: "
            f"pip install 'uvicorn~={UVICORN}0'"
        )


def websocket_protocol(limits: TransportLimits) -> type[asyncio.Protocol]:
    """Return what uvicorn makes a protocol of a WebSocket with."""
    pings = Pings(limits.ping_seconds)
    return cast(type[asyncio.Protocol], partial(WebSocketProtocol, limits=limits, pings=pings))


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """
    Serves the handshake of a WebSocket by an ASGI application, which accepts or refuses it.

    An endpoint that has accepted it takes the connection over, as the transport of a session; then
    nothing of this is left.
    """

    def __init__(
        self, *arguments: Any, limits: TransportLimits, pings: Pings, **settings: Any
    ) -> None:
        super().__init__(*arguments, **settings)
        self._limits = limits
        self._pings = pings
        self._early = b""
        """What a client has sent before the handshake was answered."""
        self._connection: WebSocketConnection | None = None
        self._is_taken_over = False
        self._unread_timer: asyncio.TimerHandle | None = None
        self._end_timer: asyncio.TimerHandle | None = None

    def connection(self) -> WebSocketConnection:
        """Return a transport for a session; it takes frames, and receives none yet."""
        self._connection = WebSocketConnection(
            self.transport, self._limits, self.connections, self._pings
        )
        return self._connection

    def take_over(self, connection: WebSocketConnection, receiver: Receiver) -> None:
        """Give the connection to `receiver`; it gets messages from the next turn of the loop on."""
        self._is_taken_over = True
        if not connection.adopt(receiver, is_paused=not self.writable.is_set()):
            return
        stop(self._unread_timer)
        self.connections.discard(self)
        self._connection = None
        if self._early:
            self.loop.call_soon(connection.data_received, self._early)
            self.transport.resume_reading()
        self._end_cycles()

    # What the event loop calls.

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        stop(self._unread_timer)
        stop(self._end_timer)
        if self._connection is not None:
            self._connection.connection_lost(exc)
        self._end_cycles()

    def data_received(self, data: bytes) -> None:
        if self.handshake_initiated:
            # A client should have waited for the answer: RFC 6455, section 4.1.
            self._early += data
            self.transport.pause_reading()
            return
        super().data_received(data)
        if self.conn.handshake_exc is not None and not self.handshake_initiated:
            # Where a line of the head is too long, uvicorn neither answers nor closes.
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.transport.close()
            self._end_timer = self.loop.call_later(ABORT_SECONDS, self.transport.abort)

    def pause_writing(self) -> None:
        super().pause_writing()
        stop(self._unread_timer)
        self._unread_timer = self.loop.call_later(
            self._limits.unread_timeout_seconds, self.transport.abort
        )

    def resume_writing(self) -> None:
        super().resume_writing()
        stop(self._unread_timer)

    # What uvicorn calls.

    def handle_connect(self, event: Any) -> None:
        super().handle_connect(event)
        if hasattr(self, "scope"):  # it was not refused
            cast(dict[str, Any], self.scope["extensions"])[EXTENSION] = self

    async def run_asgi(self) -> None:
        """Run the application; a connection that was taken over outlives it."""
        try:
            await self.app(self.scope, self.receive, self.send)
        except ClientDisconnected:
            pass
        except BaseException as error:
            HANDSHAKE_FAILED.log(self.logger, "the application failed", error=error)
            self.send_500_response()
            self._is_taken_over = False
        if not self._is_taken_over:
            self.transport.close()

    def start_keepalive(self) -> None:
        """Leave pings to the connection that takes over."""

    def _end_cycles(self) -> None:
        """Let go of what refers to this in turn, and would wait for the garbage collector."""
        self.conn.parser.close()
        if hasattr(self, "scope"):
            self.scope["extensions"].pop(EXTENSION, None)
