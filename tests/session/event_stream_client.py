"""A client of `/sse` for tests, which reads chunks and events, and holds frames to the models."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ssl import SSLContext
from typing import Any
from urllib.parse import urlencode

from tests.session.v1_client import SERVER_FRAME

PATIENCE_SECONDS = 20.0


@dataclass
class Stream:
    """A connection to `/sse`, and what a browser would remember of it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    last_event_id: str = ""
    retry: int | None = None
    """In milliseconds."""
    comments: int = 0

    async def begin(self) -> None:
        """Read the head of the answer."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.splitlines()
        self.status = int(first.split(" ")[1])
        pairs = [line.partition(": ") for line in lines if line]
        self.headers = {name.lower(): value for name, _, value in pairs}

    async def body(self) -> str:
        """Return the body of a refusal."""
        return (await self.reader.readexactly(int(self.headers["content-length"]))).decode()

    async def line(self) -> None:
        """Read what is no event: a comment."""
        text = await self._piece()
        assert text is not None and text.startswith(":"), text
        self.comments += 1

    async def event(self) -> str | None:
        """Return the data of the next event; None at the end of the stream."""
        while (text := await self._piece()) is not None:
            data = []
            assert text.endswith("\n\n"), text
            for line in text.removesuffix("\n\n").split("\n"):
                name, _, value = line.partition(": ")
                if name == "data":
                    data.append(value)
                elif name == "id":
                    self.last_event_id = value
                elif not name:
                    self.comments += 1
                else:
                    assert name == "retry", line
                    self.retry = int(value)
            if data:
                return "\n".join(data)
        return None

    async def frame(self) -> dict[str, Any] | None:
        """Return the next frame that is no heartbeat; None at the end of the stream."""
        while (text := await self.event()) is not None:
            SERVER_FRAME.validate_json(text)
            frame: dict[str, Any] = json.loads(text)
            if frame.get("type") != "ping":
                return frame
        return None

    async def frames(self, count: int) -> list[dict[str, Any]]:
        frames = [await self.frame() for _ in range(count)]
        return [frame for frame in frames if frame is not None]

    async def until(self, name: str) -> list[dict[str, Any]]:
        """Return the frames up to the first with this `type` or `op`."""
        frames = []
        while (frame := await self.frame()) is not None:
            frames.append(frame)
            if frame.get("op", frame.get("type")) == name:
                return frames
        raise AssertionError(f"the stream ended: {frames}")

    async def _piece(self) -> str | None:
        """Return the next event of a stream; None at its end."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            if self.headers.get("transfer-encoding") != "chunked":
                text = await self.reader.readuntil(b"\n\n") if not self.reader.at_eof() else b""
                return text.decode() or None
            size = int(await self.reader.readline(), 16)
            chunk = await self.reader.readexactly(size + 2)
        assert chunk.endswith(b"\r\n")
        return chunk[:-2].decode() or None


def request(
    parameters: Mapping[str, Any],
    headers: Mapping[str, str],
    method: str = "GET",
    version: str = "1.1",
) -> bytes:
    """Return a request for a stream."""
    query = urlencode(
        {k: v if isinstance(v, str) else json.dumps(v) for k, v in parameters.items()}
    )
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"{method} /sse?{query} HTTP/{version}\r\nHost: localhost\r\n{lines}\r\n".encode()


@asynccontextmanager
async def connected(port: int, ssl: SSLContext | None = None) -> AsyncIterator[Stream]:
    """Connect, and send nothing."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=ssl, limit=1 << 24)
    try:
        yield Stream(reader, writer)
    finally:
        writer.close()


@asynccontextmanager
async def stream(
    port: int,
    *,
    headers: Mapping[str, str] = {},
    last_event_id: str = "",
    ssl: SSLContext | None = None,
    **parameters: Any,
) -> AsyncIterator[Stream]:
    """Send a request for a stream, and read the head of the answer."""
    sent = dict(headers)
    if last_event_id:
        sent["Last-Event-ID"] = last_event_id
    async with connected(port, ssl) as client:
        client.writer.write(request(parameters, sent))
        await client.begin()
        client.last_event_id = last_event_id
        yield client
