"""
WebSocket spoken by hand, so that it can be spoken wrongly.

Source: RFC 6455, sections 4.1 (the handshake) and 5.2 (frames).
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import NamedTuple

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10

NO_MASK = bytes(4)
"""A mask like any other, under which a payload stays as it is."""
SMALL_BUFFER_BYTES = 4096
ESTABLISHED = 1
"""A state of TCP, as Linux numbers them."""
OPEN_SECONDS = 15.0
RECEIVE_BYTES = 65536


class HandshakeRefused(OSError):
    """The answer to a handshake was something else than 101, or none."""


class Frame(NamedTuple):
    opcode: int
    payload: bytes


def upgrade(path: str) -> bytes:
    """Return the handshake of a client."""
    lines = (
        f"GET {path} HTTP/1.1",
        "Host: localhost",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    )
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def framed(
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


def closing(code: int = 1000) -> bytes:
    """Return the frame by which a client says goodbye."""
    return framed(struct.pack("!H", code), CLOSE)


def masked(payload: bytes, mask: bytes) -> bytes:
    if mask == NO_MASK:
        return payload
    repeated = (mask * (len(payload) // 4 + 1))[: len(payload)]
    both = int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")
    return both.to_bytes(len(payload), "big")


class Frames:
    """Cuts what comes over a connection, in whatever pieces, into frames, masked or not."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[Frame]:
        data = self._rest + data
        place = 0
        while (found := frame_at(data, place)) is not None:
            frame, place = found
            yield frame
        self._rest = data[place:]


def frame_at(data: bytes, place: int) -> tuple[Frame, int] | None:
    """Return the frame that begins there and the place after it, or None if it is not whole."""
    if len(data) < place + 2:
        return None
    length, start = data[place + 1] & 0x7F, place + 2
    wide = {126: 2, 127: 8}.get(length, 0)
    if wide:
        length, start = int.from_bytes(data[start : start + wide], "big"), start + wide
    mask = NO_MASK
    if data[place + 1] & 0x80:
        mask, start = data[start : start + 4], start + 4
    if len(data) < start + length:
        return None
    payload = masked(data[start : start + length], mask)
    return Frame(data[place] & 0x0F, payload), start + length


def code_of(frame: Frame) -> int | None:
    """Return the code in a close frame; None if it has none, or is none."""
    has_code = frame.opcode == CLOSE and len(frame.payload) >= 2
    return int.from_bytes(frame.payload[:2], "big") if has_code else None


class RawClient:
    """A connection on which anything may be said at any time."""

    def __init__(self, socket: socket.socket) -> None:
        self._socket = socket
        self._frames = Frames()
        self._pending: deque[Frame] = deque()
        self.close_code: int | None = None
        """The one that was heard, if any."""

    @property
    def is_open(self) -> bool:
        """Whether the other side has neither closed nor reset it, though nothing is read."""
        information = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
        return information[0] == ESTABLISHED

    async def upgrade(self, path: str) -> None:
        """Do the handshake. Raises `HandshakeRefused`."""
        await self.send(upgrade(path))
        answer = b""
        while b"\r\n\r\n" not in answer:
            data = await self.receive()
            if not data:
                raise HandshakeRefused(f"no answer to a handshake but {answer!r}")
            answer += data
        head, _, early = answer.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 101"):
            raise HandshakeRefused(head.splitlines()[0].decode(errors="replace"))
        self._pending.extend(self._frames.feed(early))

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self._socket, data)

    async def receive(self, most_bytes: int = RECEIVE_BYTES) -> bytes:
        """Return what has come; nothing if the other side has ended it."""
        return await asyncio.get_running_loop().sock_recv(self._socket, most_bytes)

    async def next_frame(self) -> Frame | None:
        """Return what comes next; None once the other side has ended it, in whatever way."""
        while not self._pending:
            try:
                data = await self.receive()
            except OSError:
                return None
            if not data:
                return None
            self._pending.extend(self._frames.feed(data))
        frame = self._pending.popleft()
        self.close_code = code_of(frame) or self.close_code
        return frame

    async def next_text(self) -> bytes | None:
        """Return the next message; None after a goodbye, or an end without."""
        while self.close_code is None and (frame := await self.next_frame()) is not None:
            if frame.opcode == TEXT:
                return frame.payload
        return None

    async def hear_goodbye(self) -> None:
        """Read until the other side has said goodbye, or is gone without."""
        while self.close_code is None and await self.next_frame() is not None:
            pass

    async def read_to_the_end(self) -> None:
        while await self.next_frame() is not None:
            pass

    def say_no_more(self) -> None:
        """End this half of the connection."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the other side was faster

    def vanish(self) -> None:
        """Close it by a reset, as a program does that dies with unread data."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def close(self) -> None:
        self._socket.close()


@asynccontextmanager
async def connected_to(port: int, receive_buffer_bytes: int = 0) -> AsyncIterator[RawClient]:
    """Connect, with a receive buffer of about that size if any is given, and say nothing."""
    connection = socket.socket()
    try:
        connection.setblocking(False)
        # So that what is said in pieces arrives in pieces.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if receive_buffer_bytes:
            # Before it connects: the window is agreed on there.
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
