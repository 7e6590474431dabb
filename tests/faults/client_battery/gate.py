"""A proxy between clients and Brain that does to their connections what networks do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from enum import Enum

FORBIDDEN = b"HTTP/1.1 403 Forbidden\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
CHUNK_BYTES = 65536


class Upgrades(Enum):
    """What happens to a request for a WebSocket."""

    PASS = "pass"
    FORBID = "forbid"
    """It is answered with 403."""
    CUT = "cut"
    """Its connection ends without an answer."""
    IGNORE = "ignore"
    """It is never answered."""


class Connection:
    """One connection of a client."""

    def __init__(self, gate: Gate, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self._gate = gate
        self._reader = reader
        self._writer = writer
        self.is_silent = False
        """True if nothing is forwarded any more, and nothing closed."""
        self.is_websocket = False
        self.bytes_left: int | None = None
        """After so many bytes for the client the connection is cut."""

    def cut(self) -> None:
        self._writer.transport.abort()

    async def forward(self) -> None:
        gate = self._gate
        head = await self._reader.readuntil(b"\r\n\r\n")
        self.is_websocket = b"upgrade: websocket" in head.lower()
        if self.is_websocket and gate.upgrades is not Upgrades.PASS:
            gate.blocked += 1
            await self._refuse(gate.upgrades)
            return
        upstream = await asyncio.open_connection("127.0.0.1", gate.target)
        try:
            self._count(head)
            upstream[1].write(head)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._pump_up(upstream[1]))
                tasks.create_task(self._pump_down(upstream[0]))
        finally:
            upstream[1].transport.abort()

    async def _refuse(self, how: Upgrades) -> None:
        if how is Upgrades.FORBID:
            self._writer.write(FORBIDDEN)
        if how is not Upgrades.CUT:
            # Until the client has closed.
            await self._reader.read()

    def _count(self, data: bytes) -> None:
        # Connections are used for several requests, each of which fits into a piece.
        if self.is_websocket:
            self._gate.websockets += 1
        elif data.startswith(b"GET ") and b"/sse?" in data.partition(b"\r\n")[0]:
            self._gate.streams += 1

    async def _pump_up(self, writer: asyncio.StreamWriter) -> None:
        while data := await self._reader.read(CHUNK_BYTES):
            if not self.is_websocket:
                self._count(data)
            if not self.is_silent:
                writer.write(data)
                await writer.drain()
        raise ConnectionResetError("the client has closed")

    async def _pump_down(self, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(CHUNK_BYTES):
            if self.is_silent:
                continue
            if self.bytes_left is not None and len(data) >= self.bytes_left:
                self._writer.write(data[: self.bytes_left])
                await self._writer.drain()
                break
            if self.bytes_left is not None:
                self.bytes_left -= len(data)
            self._writer.write(data)
            await self._writer.drain()
        if self.is_silent:
            # The client learns nothing of the end, either.
            await asyncio.Event().wait()
        raise ConnectionResetError("the server has closed, or the connection is cut")


class Gate:
    """Forwards the connections of one port to another one of this machine."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self.upgrades = Upgrades.PASS
        self.is_shut = False
        """True if every connection ends at once."""
        self.websockets = 0
        """How many were opened."""
        self.streams = 0
        """How many streams of SSE were opened."""
        self.blocked = 0
        """How many requests for a WebSocket were not forwarded."""
        self.connections: list[Connection] = []
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def shut(self) -> None:
        """End every connection, and those to come."""
        self.is_shut = True
        self.cut()

    def open(self) -> None:
        self.is_shut = False

    def cut(self) -> None:
        for connection in self.connections:
            connection.cut()

    def cut_after(self, count: int) -> None:
        """Cut each present connection once its client has been sent so many more bytes."""
        for connection in self.connections:
            connection.bytes_left = count

    def fall_silent(self) -> None:
        """Forward nothing more on the present connections, and close none of them."""
        for connection in self.connections:
            connection.is_silent = True

    def open_websockets(self) -> int:
        return sum(connection.is_websocket for connection in self.connections)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        connection = Connection(self, reader, writer)
        self.connections.append(connection)
        try:
            if not self.is_shut:
                await connection.forward()
        except* (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        except* asyncio.CancelledError:
            pass
        finally:
            self.connections.remove(connection)
            self._tasks.discard(task)
            writer.transport.abort()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(set(self._tasks))


@asynccontextmanager
async def gate_to(port: int) -> AsyncIterator[Gate]:
    """Run a gate to a port of this machine until the context ends."""
    gate = Gate(port)
    server = await asyncio.start_server(gate.serve, "127.0.0.1", 0)
    gate.port = server.sockets[0].getsockname()[1]
    try:
        yield gate
    finally:
        server.close()
        await gate.close()
        with suppress(OSError):
            await server.wait_closed()
