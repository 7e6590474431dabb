"""Who is compared in telling many clients the same."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

# Takes the numbers of the messages, and returns when they are handed over.
Publish = Callable[[Sequence[int]], Awaitable[None]]


@dataclass(frozen=True)
class Contender:
    """A running server, and how it is made to send."""

    name: str
    port: int
    process_id: int
    publish: Publish = field(repr=False)
    path: str = "/ws"
    is_greeted: bool = False
    """Whether clients are sent something before anything is published."""
    waits_for_clients: bool = False
    """Whether it may hold a frame back until the former one is acknowledged."""

    @property
    def load_options(self) -> list[str]:
        """What its clients have to know."""
        options = {"--greeted": self.is_greeted, "--acknowledges": self.waits_for_clients}
        return [option for option, is_on in options.items() if is_on]


class Poster:
    """Posts to a server over one HTTP connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def post(self, path: str, bodies: Sequence[bytes]) -> None:
        """Post one body right after the other, and wait for all the answers."""
        for body in bodies:
            head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
            self._writer.write(head.encode() + body)
        for _ in bodies:
            await self._take_answer()

    async def _take_answer(self) -> None:
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
    """Return a port that was free a moment ago, for a program that cannot choose one itself."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])
