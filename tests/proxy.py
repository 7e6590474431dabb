"""A TCP proxy that interrupts connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

Change = Callable[[bytes], bytes]


def unchanged(data: bytes) -> bytes:
    return data


class Proxy:
    """Forwards bytes to one address, except between `swallow` and `restore`."""

    def __init__(self, url: str, change: Change) -> None:
        self.lead_to(url)
        self._change = change
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.connections = 0

    def lead_to(self, url: str) -> None:
        """Forward new connections to the server of this URL."""
        parts = urlsplit(url)
        self._target = (parts.hostname or "localhost", parts.port or 5432)

    def swallow(self) -> None:
        """Forward nothing from now on, without closing anything: a black hole."""
        self._flowing.clear()

    def restore(self) -> None:
        self._flowing.set()

    async def forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            target_reader, target_writer = await asyncio.open_connection(*self._target)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._pump(reader, target_writer, unchanged))
                tasks.create_task(self._pump(target_reader, writer, self._change))
        except* (OSError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, change: Change
    ) -> None:
        try:
            while data := await reader.read(65536):
                await self._flowing.wait()
                writer.write(change(data))
                await writer.drain()
        finally:
            writer.close()

    async def close(self) -> None:
        self._flowing.set()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(set(self._tasks))


@asynccontextmanager
async def proxy_to(url: str, change: Change = unchanged) -> AsyncIterator[tuple[str, Proxy]]:
    """Yield a URL that leads to `url` through a proxy, and the proxy."""
    parts = urlsplit(url)
    proxy = Proxy(url, change)
    server = await asyncio.start_server(proxy.forward, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    credentials, at, _ = parts.netloc.rpartition("@")
    try:
        yield parts._replace(netloc=f"{credentials}{at}127.0.0.1:{proxy.port}").geturl(), proxy
    finally:
        server.close()
        await proxy.close()
        await server.wait_closed()
