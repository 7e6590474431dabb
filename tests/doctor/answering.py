"""Servers that are no Brain, or a proxy that does not do what it has to."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

SILENCE = b""


def response(status: int, body: str = "", **headers: str) -> bytes:
    """Return an HTTP response."""
    lines = [f"HTTP/1.1 {status} Status", f"content-length: {len(body)}", "server: nginx/1.26"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


ALIVE = response(200, '{"status":"alive"}', content_type="application/json")


class Answering(asyncio.Protocol):
    """Answers each request by its path, and closes after what is no response of known length."""

    def __init__(self, default: bytes, answers: Mapping[str, bytes]) -> None:
        self._default = default
        self._answers = answers
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while b"\r\n\r\n" in self._received:
            head, _, self._received = self._received.partition(b"\r\n\r\n")
            path = head.split(b" ", 2)[1].decode().partition("?")[0]
            answer = self._answers.get(path, self._default)
            self._transport.write(answer)
            if b"content-length" not in answer and answer != SILENCE:
                self._transport.close()
                return


@asynccontextmanager
async def answering(
    default: bytes, answers: Mapping[str, bytes] = {}, *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """Yield the port of a server that answers by path; nothing to SILENCE."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Answering(default, answers), "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
