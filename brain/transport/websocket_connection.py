"""A WebSocket after its handshake: frames go straight to the socket; everything has a limit."""

from __future__ import annotations

import asyncio
from collections.abc import MutableSet
from enum import Enum, auto
from typing import Any

from brain.close_codes import CloseCode
from brain.message.rendering import Framing
from brain.session.session_counts import NO_CODE
from brain.session.token_bucket import TokenBucket
from brain.session.transport_protocol import Receiver
from brain.transport.client_frames import (
    ClientFrame,
    Opcode,
    WrongFrame,
    check_close,
    next_frame,
)
from brain.transport.connection import Connection
from brain.transport.limits import TransportLimits
from brain.transport.pings import Pings
from brain.transport.websocket_frames import (
    WEBSOCKET_FRAMING,
    close_frame,
    close_reason,
    control_frame,
)

# How long a client that breaks a limit may take to read why.
ABORT_SECONDS = 1.0
FLOODS = (CloseCode.RATE_LIMITED, CloseCode.MESSAGE_TOO_BIG)


class State(Enum):
    """How far a connection has come to its end."""

    OPEN = auto()
    CLOSING = auto()
    """A close frame was sent, and the answer is awaited."""
    ENDED = auto()
    """All further input is discarded."""


class WebSocketConnection(Connection):
    """The transport of a session that speaks WebSocket."""

    __slots__ = (
        "_control_frames",
        "_fragment_bytes",
        "_fragments",
        "_is_text",
        "_partial",
        "_ping",
        "_pings",
        "_slot",
        "_state",
    )

    framing: Framing = WEBSOCKET_FRAMING

    def __init__(
        self,
        transport: asyncio.Transport,
        limits: TransportLimits,
        connections: MutableSet[Any],
        pings: Pings,
    ) -> None:
        super().__init__(transport, limits, connections)
        self._pings = pings
        self._state = State.OPEN
        self._partial: bytearray | None = None
        """The beginning of a frame."""
        self._fragments: list[bytes] | None = None
        """Of a message that has not ended."""
        self._fragment_bytes = 0
        """How many bytes these have."""
        self._is_text = False
        self._ping: bytes | None = None
        """The payload of a ping that was not answered yet."""
        self._slot: int | None = None
        """See `Pings`."""
        self._control_frames: TokenBucket | None = None

    def adopt(self, receiver: Receiver, *, is_paused: bool) -> bool:
        is_adopted = super().adopt(receiver, is_paused=is_paused)
        if is_adopted and self._state is State.OPEN:
            self._slot = self._pings.add(self)
        return is_adopted

    def close(self, code: CloseCode, reason: str) -> None:
        """Send a close frame, and abort the connection if there is no answer."""
        self._detach_receiver(code)
        if self._state is not State.OPEN or self.transport.is_closing():
            return
        self._state = State.CLOSING
        self.transport.write(close_frame(code, close_reason(reason)))
        if code in FLOODS:
            # Such a client goes on sending, and its answer would come after all of that.
            self.transport.pause_reading()
            self._abort_in(ABORT_SECONDS)
        else:
            self._abort_in(self._limits.close_seconds)

    def ping(self, payload: bytes) -> None:
        if self._state is not State.OPEN or self.transport.is_closing():
            return
        if self._ping is None:
            self._ping = payload
            self.transport.write(control_frame(Opcode.PING, payload))
        else:
            # Do not wait until the client has read everything.
            self._end(CloseCode.INTERNAL_ERROR, "keepalive ping timeout", ABORT_SECONDS)

    # What the event loop calls.

    def connection_lost(self, exc: Exception | None) -> None:
        self._state = State.ENDED
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        received: bytes | bytearray = data
        if self._partial is not None:
            self._partial += data
            received = self._partial
        start = 0
        try:
            while self._state is not State.ENDED and (found := self._next(received, start)):
                frame, start = found
                self._frame_received(frame)
        except WrongFrame as wrong:
            self._end(wrong.code, str(wrong), self._limits.close_seconds)
        if self._state is State.ENDED or start == len(received):
            self._partial = None
        elif received is self._partial:
            del self._partial[:start]
        else:
            self._partial = bytearray(received[start:])

    # What uvicorn calls.

    def shutdown(self) -> None:
        """Close, with the code that the session has for it, and do not wait for an answer."""
        receiver = self._receiver
        code = CloseCode.SERVICE_RESTART if receiver is None else receiver.going_away_code
        self._detach_receiver(code)
        if self._state is State.OPEN:
            self.transport.write(close_frame(code))
        self._state = State.ENDED
        self.transport.close()

    # What the client sends.

    def _next(self, received: bytes | bytearray, start: int) -> tuple[ClientFrame, int] | None:
        most_bytes = self._limits.message_bytes - self._fragment_bytes
        return next_frame(received, start, most_bytes)

    def _frame_received(self, frame: ClientFrame) -> None:
        match frame.opcode:
            case Opcode.PING:
                self._ping_received(frame.payload)
            case Opcode.PONG:
                self._pong_received(frame.payload)
            case Opcode.CLOSE:
                self._close_received(frame.payload)
            case Opcode.CONTINUATION:
                self._continuation_received(frame)
            case opcode:
                if self._fragments is not None:
                    raise WrongFrame(CloseCode.PROTOCOL_ERROR, "expected a continuation frame")
                self._is_text = opcode is Opcode.TEXT
                if frame.is_last:
                    self._message_received(frame.payload)
                else:
                    self._fragments = [frame.payload]
                    self._fragment_bytes = len(frame.payload)

    def _ping_received(self, payload: bytes) -> None:
        if self._is_within_rate():
            self.transport.write(control_frame(Opcode.PONG, payload))
            self._abort_if_unread()

    def _pong_received(self, payload: bytes) -> None:
        if payload == self._ping:
            self._ping = None
        else:
            self._is_within_rate()

    def _close_received(self, payload: bytes) -> None:
        check_close(payload)
        # After a close frame nothing may be sent.
        self._detach_receiver(int.from_bytes(payload[:2]) if payload else NO_CODE)
        if self._state is State.OPEN:
            self.transport.write(control_frame(Opcode.CLOSE, payload))
        self._state = State.ENDED
        self.transport.close()
        # Without this a client that sends a close frame and reads nothing would stay for ever.
        self._abort_in(self._limits.close_seconds)

    def _continuation_received(self, frame: ClientFrame) -> None:
        fragments = self._fragments
        if fragments is None:
            raise WrongFrame(CloseCode.PROTOCOL_ERROR, "unexpected continuation frame")
        if not self._is_within_rate():
            return
        if len(fragments) >= self._limits.fragments:
            self.close(CloseCode.MESSAGE_TOO_BIG, "too many fragments")
            return
        fragments.append(frame.payload)
        self._fragment_bytes += len(frame.payload)
        if frame.is_last:
            self._fragments, self._fragment_bytes = None, 0
            self._message_received(b"".join(fragments))

    def _message_received(self, data: bytes) -> None:
        receiver = self._receiver
        if receiver is None:
            return
        message: str | bytes = data
        if self._is_text:
            try:
                message = data.decode()
            except UnicodeDecodeError:
                self.close(CloseCode.INVALID_TEXT, "not UTF-8")
                return
        receiver.message_received(message)
        self._abort_if_unread()

    def _abort_if_unread(self) -> None:
        if self.transport.get_write_buffer_size() > self._limits.unread_bytes:
            self._abort_unread()

    def _is_within_rate(self) -> bool:
        """Count a frame that no session sees; close the connection if there are too many."""
        if self._state is not State.OPEN:
            return False
        if self._control_frames is None:  # most clients send none
            self._control_frames = TokenBucket(self._limits.frames_per_second)
        if self._control_frames.take(asyncio.get_running_loop().time()) < 0:
            self.close(CloseCode.RATE_LIMITED, "too many frames")
            return False
        return True

    # The end.

    def _end(self, code: CloseCode, reason: str, seconds: float) -> None:
        """Send a close frame, unless one was sent, and do not wait for an answer."""
        self._detach_receiver(code)
        if self._state is State.OPEN:
            self.transport.write(close_frame(code, close_reason(reason)))
        self._state = State.ENDED
        self.transport.close()
        self._abort_in(seconds)

    def _detach_receiver(self, code: int) -> None:
        if self._slot is not None:
            self._pings.remove(self, self._slot)
            self._slot = None
        super()._detach_receiver(code)
