"""A transport for tests: lines of text over a plain socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, cast

from brain.close_codes import CloseCode
from brain.message.cursor import Cursor
from brain.session.session import Session


class LineFraming:
    """Delimits texts by newlines, which JSON does not contain."""

    name = "line"
    keep_alive = b""
    transport = "test"

    def frame(self, text: str, cursor: Cursor | None = None) -> bytes:
        return text.encode() + b"\n"


class LineTransport(asyncio.Protocol):
    """Opens a session for the first line of a client, and passes all later lines to it."""

    framing = LineFraming()

    def __init__(self, session_for: Callable[[LineTransport, Any], Session]) -> None:
        self._session_for = session_for
        self._session: Session | None = None
        self._unread = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.write = self._transport.write

    def send_now(self, frames: bytes) -> int:
        self.write(frames)
        return len(frames)

    def sent_bytes(self) -> None:
        return None

    def close(self, code: CloseCode, reason: str) -> None:
        self.write(self.framing.frame(f"closed {code.value} {reason}"))
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in lines:
            if self._session is None:
                self._session = self._session_for(self, json.loads(line))
                self._session.open()
            else:
                self._session.message_received(line.decode())

    def pause_writing(self) -> None:
        if self._session is not None:
            self._session.pause_writing()

    def resume_writing(self) -> None:
        if self._session is not None:
            self._session.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._session is not None:
            self._session.connection_lost()
