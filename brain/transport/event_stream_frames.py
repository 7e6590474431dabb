"""
Messages as finished server-sent events.

Source: HTML, section 9.2 (https://html.spec.whatwg.org/multipage/server-sent-events.html); for
chunks RFC 9112, section 7.1.
"""

from __future__ import annotations

import random
import re

from brain.close_codes import CloseCode
from brain.message.cursor import Cursor
from brain.message.v1_frames import Closed

LAST_CHUNK = b"0\r\n\r\n"
END_OF_LINE = re.compile(r"\r\n|\r|\n")

# How long a client waits before it reconnects: at random in between, so that not all come at once.
RETRY_MILLISECONDS = (2_000, 4_000)
RESTART_MILLISECONDS = (1_000, 10_000)
# Where it is of no use: a browser reconnects all the same.
USELESS_MILLISECONDS = (60_000, 120_000)
LEAST_FINAL_CODE = 4500


class EventStreamFraming:
    """Delimits texts as events without a type, which `onmessage` gets; a cursor is their id."""

    transport = "sse"

    def __init__(self, *, is_chunked: bool) -> None:
        """`is_chunked`: each event is a chunk of HTTP/1.1."""
        self.name = "event stream in chunks" if is_chunked else "event stream"
        self._is_chunked = is_chunked
        self.keep_alive = self._piece(": keep-alive\n\n")

    def frame(self, text: str, cursor: Cursor | None = None) -> bytes:
        """Return `text` as one event; a client that reconnects sends the last id that it got."""
        if "\n" in text or "\r" in text:  # such as JSON that PostgreSQL has kept as it was written
            text = END_OF_LINE.sub("\ndata: ", text)
        return self._piece(
            f"data: {text}\n\n" if cursor is None else f"id: {cursor}\ndata: {text}\n\n"
        )

    def begin(self) -> bytes:
        """Return what a stream begins with."""
        return self._retry(RETRY_MILLISECONDS)

    def end(self, code: CloseCode, reason: str) -> bytes:
        """Return what a stream ends with; some clients then wait longer before they reconnect."""
        pieces = [self.frame(Closed(code=code, reason=reason).model_dump_json())]
        if code in (CloseCode.GOING_AWAY, CloseCode.SERVICE_RESTART):
            pieces.append(self._retry(RESTART_MILLISECONDS))
        elif code >= LEAST_FINAL_CODE:
            pieces.append(self._retry(USELESS_MILLISECONDS))
        if self._is_chunked:
            pieces.append(LAST_CHUNK)
        return b"".join(pieces)

    def _retry(self, milliseconds: tuple[int, int]) -> bytes:
        return self._piece(f"retry: {random.randint(*milliseconds)}\n\n")

    def _piece(self, text: str) -> bytes:
        data = text.encode()
        return b"%x\r\n%b\r\n" % (len(data), data) if self._is_chunked else data


EVENT_STREAM = EventStreamFraming(is_chunked=False)
EVENT_STREAM_CHUNKS = EventStreamFraming(is_chunked=True)
"""Those for all connections, so that they share frames."""
