"""
Messages as finished WebSocket frames.

Source: RFC 6455, section 5.2. A server's frames are not masked.
"""

from __future__ import annotations

from collections.abc import Iterator

from brain.message.cursor import Cursor

# The first and last frame of a text message, and of any message.
WHOLE_TEXT, WHOLE = b"\x81", 0x80
# In place of a length: it follows in two bytes, or in eight.
LONG, LONGER = 126, 127
LONG_TEXT, LONGER_TEXT = WHOLE_TEXT + bytes([LONG]), WHOLE_TEXT + bytes([LONGER])
MOST_REASON_BYTES = 123
CLOSE = 8


class WebSocketFraming:
    """Delimits texts as WebSocket frames."""

    name = transport = "websocket"
    keep_alive = b""  # the protocol has pings of its own

    def frame(self, text: str, cursor: Cursor | None = None) -> bytes:
        """Return `text` as one frame; a cursor is in the text, or nowhere."""
        payload = text.encode()
        size = len(payload)
        if size < LONG:
            return WHOLE_TEXT + size.to_bytes(1) + payload
        if size < 1 << 16:
            return LONG_TEXT + size.to_bytes(2) + payload
        return LONGER_TEXT + size.to_bytes(8) + payload


WEBSOCKET_FRAMING = WebSocketFraming()
"""The one for all connections, so that they share frames."""


def control_frame(opcode: int, payload: bytes) -> bytes:
    """Return a close frame, a ping or a pong: with at most 125 bytes."""
    return bytes((WHOLE | opcode, len(payload))) + payload


def close_frame(code: int, reason: str = "") -> bytes:
    """Return a close frame; see `close_reason`."""
    return control_frame(CLOSE, code.to_bytes(2) + reason.encode())


def close_reason(text: str) -> str:
    """Return as much of `text` as a close frame can hold."""
    return text.encode()[:MOST_REASON_BYTES].decode(errors="ignore")


def texts_of(frames: bytes) -> Iterator[str]:
    """Yield the texts in frames of `WebSocketFraming`."""
    start = 0
    while start < len(frames):
        length, start = frames[start + 1], start + 2
        if length >= LONG:
            size = 2 if length == LONG else 8
            length = int.from_bytes(frames[start : start + size])
            start += size
        yield frames[start : start + length].decode()
        start += length
