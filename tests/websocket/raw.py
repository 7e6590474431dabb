"""A client that does what clients should not."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from websockets.frames import Frame, Opcode

HANDSHAKE = (
    "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
PATIENCE_SECONDS = 10.0


class RawClient:
    """A socket that reads only when it is told to."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection

    async def say(self, opcode: Opcode, data: bytes = b"", *, fin: bool = True) -> None:
        await self.send(Frame(opcode, data, fin).serialize(mask=True))

    async def send(self, data: bytes) -> None:
        """Raises `OSError` once the server has cut the connection."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            await asyncio.get_running_loop().sock_sendall(self._socket, data)

    async def read_handshake(self) -> bytes:
        """Return what came after the head of the answer, of which it must be the first."""
        answer = b""
        while b"\r\n\r\n" not in answer:
            received = await self.read()
            assert received, answer
            answer += received
        head, _, rest = answer.partition(b"\r\n\r\n")
        assert b" 101 " in head, head
        return rest

    async def read(self) -> bytes:
        """Return what there is; nothing at the end. Raises `OSError` at a rough one."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await asyncio.get_running_loop().sock_recv(self._socket, 65536)

    async def read_to_end(self) -> bytes:
        """Return everything up to the end of the connection, of whatever kind."""
        received = b""
        try:
            while data := await self.read():
                received += data
        except OSError:
            pass
        return received


@asynccontextmanager
async def raw_client(
    port: int, path: str | None = "/ws", *, receive_buffer: int | None = None
) -> AsyncIterator[RawClient]:
    """Connect, with a handshake unless there is no path."""
    with socket.socket() as connection:
        connection.setblocking(False)
        if receive_buffer is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", port))
        client = RawClient(connection)
        if path is not None:
            await client.send(HANDSHAKE.format(path=path).encode())
        yield client


def close_code(frames: bytes) -> int | None:
    """Return the code of the close frame at the end of `frames`, if there is one."""
    start = 0
    while start + 2 <= len(frames):
        opcode, length, head = frames[start] & 15, frames[start + 1], 2
        if length >= 126:
            size = 2 if length == 126 else 8
            length = int.from_bytes(frames[start + 2 : start + 2 + size])
            head += size
        if opcode == Opcode.CLOSE:
            return int.from_bytes(frames[start + head : start + head + 2])
        start += head + length
    return None
