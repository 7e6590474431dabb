"""
Messages as they go over a WebSocket: finished frames, made once for however many clients.

Source: RFC 6455, section 5.2. What a server sends is not masked.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import pack

# The only and last frame of a text.
WHOLE_TEXT = 0x81
# In place of a length: it follows in two bytes, or in eight.
LONG, LONGER = 126, 127


def framed(text: str) -> bytes:
    """Return `text` as one frame."""
    payload = text.encode()
    size = len(payload)
    if size < LONG:
        return pack("!BB", WHOLE_TEXT, size) + payload
    if size < 1 << 16:
        return pack("!BBH", WHOLE_TEXT, LONG, size) + payload
    return pack("!BBQ", WHOLE_TEXT, LONGER, size) + payload


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
