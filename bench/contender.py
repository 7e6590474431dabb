"""A server of the fan-out benchmark."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

from bench.dialects import Dialect, WebSocketDialect

# Publishes the messages with these numbers; returns when the server has accepted them.
Publish = Callable[[Sequence[int]], Awaitable[None]]


@dataclass(frozen=True)
class Contender:
    """A running server, and the call that publishes a message on it."""

    name: str
    port: int
    process_id: int
    publish: Publish = field(repr=False)
    dialect: Dialect = field(default_factory=partial(WebSocketDialect, "/ws", is_greeted=False))
    """What its clients speak."""
    has_cursors: bool = False
    """True if its messages have cursors, and so differ in length."""
    waits_for_clients: bool = False
    """True if the server may delay a frame until the previous one is acknowledged (Nagle)."""


class Poster:
    """Sends POST requests to a server over one HTTP connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def post(self, path: str, bodies: Sequence[bytes]) -> None:
        """Post the bodies without waiting in between (pipelined), then read all responses."""
        for body in bodies:
            head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
            self._writer.write(head.encode() + body)
        for _ in bodies:
            await self._read_response()

    async def _read_response(self) -> None:
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower()
        assert head.startswith("http/1.1 2"), head
        length = head.partition("content-length:")[2].partition("\r\n")[0]
        await self._reader.readexactly(int(length))


@asynccontextmanager
async def connected_poster(port: int) -> AsyncIterator[Poster]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Poster(reader, writer)
    finally:
        writer.close()


def free_port() -> int:
    """Return a port that was free just now, for a program that cannot choose one itself."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])
