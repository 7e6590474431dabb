"""
A WebSocket client without a library, for tests that break the protocol and for benchmarks.

It masks with zeros unless it is given another mask, answers no ping and checks nothing that it
receives. Source: RFC 6455, sections 4.1 (the handshake) and 5.2 (frames).
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10

NO_MASK = bytes(4)
"""A valid mask that leaves a payload unchanged."""
SMALL_BUFFER_BYTES = 4096
ESTABLISHED = 1
"""A TCP state, as numbered by Linux."""
OPEN_SECONDS = 15.0
RECEIVE_BYTES = 65536

END_OF_HEAD = b"\r\n\r\n"
HANDSHAKE = (
    "GET {path} HTTP/1.1\r\n"
    "Host: localhost\r\n"
    "Connection: Upgrade\r\n"
    "Upgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
# The response to the key above, which is the example of RFC 6455.
HANDSHAKE_RESPONSE = (
    b"HTTP/1.1 101 Switching Protocols\r\n"
    b"Upgrade: websocket\r\n"
    b"Connection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
    b"\r\n"
)


class HandshakeRefused(OSError):
    """The response to a handshake was not 101, or there was none."""


class Frame(NamedTuple):
    opcode: int
    payload: bytes


def handshake(path: str, *headers: str) -> bytes:
    """Return the request of a client."""
    lines = "".join(f"{header}\r\n" for header in headers)
    return f"{HANDSHAKE.format(path=path)}{lines}\r\n".encode()


def after_handshake(received: bytes) -> bytes | None:
    """Return what follows the response; None while it is incomplete. Raises `HandshakeRefused`."""
    head, end, rest = received.partition(END_OF_HEAD)
    if not end:
        return None
    if not head.startswith(b"HTTP/1.1 101 "):
        raise HandshakeRefused(head.partition(b"\r\n")[0].decode(errors="replace"))
    return rest


def receive_handshake(connection: socket.socket) -> bytes:
    """Wait for the response, and return the bytes after it. Raises `HandshakeRefused`."""
    received = b""
    while (rest := after_handshake(received)) is None:
        data = connection.recv(RECEIVE_BYTES)
        if not data:
            raise HandshakeRefused(f"no response to a handshake but {received!r}")
        received += data
    return rest


def client_frame(
    payload: bytes, opcode: int = TEXT, *, is_final: bool = True, mask: bytes = NO_MASK
) -> bytes:
    """Return a frame as a client sends it."""
    head = bytes([opcode | is_final << 7])
    if len(payload) < 126:
        head += bytes([0x80 | len(payload)])
    elif len(payload) < 65536:
        head += struct.pack("!BH", 0x80 | 126, len(payload))
    else:
        head += struct.pack("!BQ", 0x80 | 127, len(payload))
    return head + mask + masked(payload, mask)


def close_frame(code: int = 1000) -> bytes:
    """Return the frame with which a client closes the connection."""
    return client_frame(struct.pack("!H", code), CLOSE)


def masked(payload: bytes, mask: bytes) -> bytes:
    if mask == NO_MASK:
        return payload
    repeated = (mask * (len(payload) // 4 + 1))[: len(payload)]
    both = int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")
    return both.to_bytes(len(payload), "big")


def payload_at(data: bytes, place: int) -> tuple[int, int] | None:
    """
    Return where the payload of the frame at `place` begins and ends.

    None while the frame is incomplete. Where it is masked, the mask is the four bytes before.
    """
    if len(data) < place + 2:
        return None
    length, start = data[place + 1], place + 2
    if length & 0x80:
        length, start = length & 0x7F, start + 4
    if length > 125:
        size = 2 if length == 126 else 8
        length = int.from_bytes(data[place + 2 : place + 2 + size], "big")
        start += size
    end = start + length
    return (start, end) if end <= len(data) else None


def split_frames(data: bytes) -> tuple[list[Frame], bytes]:
    """Return the complete frames, masked or not, and the bytes that are left."""
    frames: list[Frame] = []
    place = 0
    while (bounds := payload_at(data, place)) is not None:
        start, end = bounds
        payload = data[start:end]
        if data[place + 1] & 0x80:
            payload = masked(payload, data[start - 4 : start])
        frames.append(Frame(data[place] & 0x0F, payload))
        place = end
    return frames, data[place:]


def close_code(frame: Frame) -> int | None:
    """Return the code in a close frame; None if it has none, or is of another kind."""
    has_code = frame.opcode == CLOSE and len(frame.payload) >= 2
    return int.from_bytes(frame.payload[:2], "big") if has_code else None


class RawClient:
    """A connection that sends anything at any time, and reads only on request."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._rest = b""
        """The beginning of a frame that is incomplete."""
        self._pending: deque[Frame] = deque()
        self.close_code: int | None = None
        """The one that was received, if any."""

    @property
    def is_open(self) -> bool:
        """True until the other side closes or resets the connection; nothing is read."""
        information = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
        return information[0] == ESTABLISHED

    async def upgrade(self, path: str) -> None:
        """Do the handshake. Raises `HandshakeRefused`."""
        await self.send(handshake(path))
        await self.receive_handshake()

    async def receive_handshake(self) -> None:
        """Receive the response to a handshake. Raises `HandshakeRefused`."""
        received = b""
        while (rest := after_handshake(received)) is None:
            data = await self.receive()
            if not data:
                raise HandshakeRefused(f"no response to a handshake but {received!r}")
            received += data
        self._take(rest)

    async def send(self, data: bytes) -> None:
        """Raises `OSError` once the other side has ended the connection."""
        await asyncio.get_running_loop().sock_sendall(self._socket, data)

    async def send_frame(self, opcode: int, payload: bytes = b"", *, is_final: bool = True) -> None:
        await self.send(client_frame(payload, opcode, is_final=is_final))

    async def receive(self, most_bytes: int = RECEIVE_BYTES) -> bytes:
        """Return the bytes that have arrived; none at the end. Raises `OSError` at a reset."""
        return await asyncio.get_running_loop().sock_recv(self._socket, most_bytes)

    async def receive_to_the_end(self) -> bytes:
        """Return every byte up to the end of the connection, of whatever kind."""
        received = bytearray()
        try:
            while data := await self.receive():
                received += data
        except OSError:
            pass
        return bytes(received)

    async def next_frame(self) -> Frame | None:
        """Return the next frame; None once the other side has ended the connection."""
        while not self._pending:
            try:
                data = await self.receive()
            except OSError:
                return None
            if not data:
                return None
            self._take(data)
        frame = self._pending.popleft()
        self.close_code = close_code(frame) or self.close_code
        return frame

    async def next_text(self) -> bytes | None:
        """Return the next message; None after a close frame, or an end without one."""
        while self.close_code is None and (frame := await self.next_frame()) is not None:
            if frame.opcode == TEXT:
                return frame.payload
        return None

    async def read_until_closed(self) -> int | None:
        """Read until a close frame, and return its code; None after an end without one."""
        while self.close_code is None and await self.next_frame() is not None:
            pass
        return self.close_code

    async def read_to_the_end(self) -> list[Frame]:
        """Return all frames up to the end of the connection, of whatever kind."""
        frames = []
        while (frame := await self.next_frame()) is not None:
            frames.append(frame)
        return frames

    def end_sending(self) -> None:
        """End this half of the connection."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the other side was faster

    def reset(self) -> None:
        """Close by a reset, as for a program that dies with unread data."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def _take(self, data: bytes) -> None:
        frames, self._rest = split_frames(self._rest + data)
        self._pending.extend(frames)


@asynccontextmanager
async def connected_to(port: int, receive_buffer_bytes: int = 0) -> AsyncIterator[RawClient]:
    """Connect, with a receive buffer of about that size if one is given, and send nothing."""
    connection = socket.socket()
    try:
        connection.setblocking(False)
        # Data that is sent in pieces arrives in pieces.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if receive_buffer_bytes:
            # Before the connect, which negotiates the TCP window.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        async with asyncio.timeout(OPEN_SECONDS):
            await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", port))
        yield RawClient(connection)
    finally:
        connection.close()


@asynccontextmanager
async def upgraded(
    port: int, path: str = "/ws", receive_buffer_bytes: int = 0
) -> AsyncIterator[RawClient]:
    """Connect and do the handshake."""
    async with connected_to(port, receive_buffer_bytes) as client:
        async with asyncio.timeout(OPEN_SECONDS):
            await client.upgrade(path)
        yield client
