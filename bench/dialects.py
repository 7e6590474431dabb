"""How the clients of the benchmarks begin, and what they find in the bytes that they receive."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from typing import Protocol

from tests.raw_websocket import client_frame, handshake, receive_handshake, split_frames

RECEIVE_BYTES = 65536
SUBSCRIBED = b'"type":"subscribed"'


class Dialect(Protocol):
    """What a client is sent before its messages, and how these are delimited."""

    @property
    def request(self) -> bytes:
        """What it sends once it is connected."""
        ...

    def begin(self, connection: socket.socket) -> bytes:
        """Receive the answer, and ask for messages; return what was received after it."""
        ...

    def finish(self, connection: socket.socket, received: bytes) -> None:
        """Receive the rest of what comes before the first message, and no more."""
        ...

    def texts(self, received: bytes) -> list[str]:
        """Return the messages in what was received; it may end within none."""
        ...


class WebSocketDialect:
    """A WebSocket that is sent its messages at once, or after a greeting."""

    def __init__(self, path: str, *headers: str, is_greeted: bool) -> None:
        self.request = handshake(path, *headers)
        self._is_greeted = is_greeted

    def begin(self, connection: socket.socket) -> bytes:
        return receive_handshake(connection)

    def finish(self, connection: socket.socket, received: bytes) -> None:
        received = receive_until(
            connection,
            received,
            lambda received: len(split_frames(received)[0]) >= self._is_greeted,
        )
        frames, left = split_frames(received)
        assert len(frames) == self._is_greeted and not left, received

    def texts(self, received: bytes) -> list[str]:
        frames, left = split_frames(received)
        assert not left, received
        return [frame.payload.decode() for frame in frames]


class V1Dialect(WebSocketDialect):
    """A WebSocket of brain.v1 with one subscription, on a channel or a row of it."""

    def __init__(self, path: str, channel: str, key: str | None = None) -> None:
        super().__init__(path, is_greeted=True)
        frame = {"type": "subscribe", "id": "a", "channel": channel}
        row = {} if key is None else {"key": [key]}
        self._subscribe = client_frame(json.dumps(frame | row).encode())

    def begin(self, connection: socket.socket) -> bytes:
        rest = receive_handshake(connection)
        connection.sendall(self._subscribe)
        return rest

    def finish(self, connection: socket.socket, received: bytes) -> None:
        receive_until(
            connection,
            received,
            lambda received: SUBSCRIBED in received and received.endswith(b"}"),
        )


class EventStreamDialect:
    """Server-sent events, in the chunks of HTTP/1.1."""

    def __init__(self, path: str) -> None:
        self.request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()

    def begin(self, connection: socket.socket) -> bytes:
        return b""

    def finish(self, connection: socket.socket, received: bytes) -> None:
        receive_until(
            connection,
            received,
            lambda received: SUBSCRIBED in received and received.endswith(b"\r\n"),
        )

    def texts(self, received: bytes) -> list[str]:
        lines = received.decode().splitlines()
        return [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]


def receive_until(
    connection: socket.socket, received: bytes, is_complete: Callable[[bytes], bool]
) -> bytes:
    """Return what was received once it is complete."""
    while not is_complete(received):
        part = connection.recv(RECEIVE_BYTES)
        if not part:
            raise ConnectionError(f"the server closed the connection after {received[:500]!r}")
        received += part
    return received
