"""
Messages as they go over a WebSocket: finished frames, made once for however many clients.

Source: RFC 6455, section 5.2. What a server sends is not masked.
"""

from __future__ import annotations

from collections.abc import Iterator

from websockets.frames import Frame, Opcode

# In place of a length: it follows in two bytes; above that, in eight.
LONG = 126


def framed(text: str) -> bytes:
    """Return `text` as one frame."""
    return Frame(Opcode.TEXT, text.encode()).serialize(mask=False)


def texts_of(frames: bytes) -> Iterator[str]:
    """Yield the texts in what `framed` made, one after the other."""
    start = 0
    while start < len(frames):
        length, start = frames[start + 1], start + 2
        if length >= LONG:
            size = 2 if length == LONG else 8
            length = int.from_bytes(frames[start : start + size])
            start += size
        yield frames[start : start + length].decode()
        start += length
