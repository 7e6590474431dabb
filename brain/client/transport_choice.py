"""Which way frames come: a WebSocket, or server-sent events where WebSockets are blocked."""

from __future__ import annotations

from typing import Literal

Transport = Literal["auto", "websocket", "sse"]
# So many failures of a WebSocket in a row are taken for a network that blocks them.
FAILURES_UNTIL_EVENT_STREAM = 2


class TransportChoice:
    """Remembers what worked; all connections of a client learn from each other."""

    def __init__(self, wanted: Transport) -> None:
        self._wanted = wanted
        self._failures = 0
        self.is_event_stream = wanted == "sse"
        """True if event streams are tried first."""

    def websocket_works(self) -> None:
        self._failures = 0

    def websocket_failed(self, *, is_refused: bool) -> bool:
        """Return True if an event stream is to be tried; a refusal may be that of a proxy."""
        self._failures += 1
        if self._wanted == "websocket":
            return False
        return is_refused or self._failures >= FAILURES_UNTIL_EVENT_STREAM

    def event_stream_works(self) -> None:
        self.is_event_stream = True

    def event_stream_failed(self) -> None:
        """Begin with WebSockets again: it is not they that are blocked."""
        self._failures = 0
        self.is_event_stream = self._wanted == "sse"
