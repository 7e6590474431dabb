"""The ASGI transport under a real server that is not uvicorn."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from hypercorn.asyncio import serve
from hypercorn.config import Config
from starlette.applications import Starlette
from starlette.types import Message
from starlette.websockets import WebSocket
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from brain.close_codes import CloseCode
from brain.message.cursor import Cursor
from brain.message.event import Batch
from brain.settings import Settings
from brain.transport.asgi import AsgiWebSocket
from tests.transport.served import a_task, application, new_hub


class Client:
    """A receiver that may fail, and the ASGI server's side of its connection."""

    going_away_code = CloseCode.SERVICE_RESTART

    def __init__(self, failure: Exception | None = None) -> None:
        self._failure = failure
        self._incoming: asyncio.Queue[Message] = asyncio.Queue()
        self._incoming.put_nowait({"type": "websocket.connect"})
        self.reads_close = True
        self.is_lost = False

    async def websocket(self) -> WebSocket:
        websocket = WebSocket({"type": "websocket"}, self._incoming.get, self._send)
        await websocket.accept()
        return websocket

    async def _send(self, message: Message) -> None:
        if message["type"] == "websocket.close" and not self.reads_close:
            await asyncio.Event().wait()

    def send(self, text: str) -> None:
        self._incoming.put_nowait({"type": "websocket.receive", "text": text})

    def message_received(self, message: str | bytes) -> None:
        if self._failure is not None:
            raise self._failure

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...

    def connection_lost(self, code: int = 1006) -> None:
        self.is_lost = True


async def test_a_client_that_does_not_read_the_close_frame_is_given_up() -> None:
    client = Client()
    client.reads_close = False
    transport = AsgiWebSocket(await client.websocket(), unread_timeout_seconds=0.05)
    transport.close(CloseCode.TOKEN_EXPIRED, "the token has expired")
    async with asyncio.timeout(10):
        await transport.run(client)
    assert client.is_lost


async def test_a_connection_whose_session_fails_ends_with_that_error_and_without_a_task() -> None:
    client = Client(RuntimeError("a session failed"))
    transport = AsgiWebSocket(await client.websocket(), unread_timeout_seconds=10)
    client.send("{}")
    with pytest.raises(RuntimeError, match="a session failed"):
        await transport.run(client)
    assert client.is_lost


def follow(port: int, max_queue: int | None = None, path: str = "/ws", **options: Any) -> connect:
    url = f"ws://127.0.0.1:{port}{path}"
    return connect(url, proxy=None, compression=None, max_queue=max_queue, **options)


@asynccontextmanager
async def hypercorn(app: Starlette) -> AsyncIterator[int]:
    """Serve `app` until the context ends; yield the port."""
    config = Config()
    config.errorlog = None
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        config.bind = [f"fd://{listener.detach()}"]
    stop = asyncio.Event()
    serving = asyncio.create_task(
        serve(app, config, shutdown_trigger=stop.wait)  # type: ignore[arg-type]
    )
    try:
        async with asyncio.timeout(60):
            yield port
    finally:
        stop.set()
        await serving


async def test_a_client_that_stops_reading_is_aborted() -> None:
    hub = new_hub(ring_bytes=100_000_000)
    async with hypercorn(application(hub, settings=Settings(unread_timeout_seconds=0.5))) as port:
        async with follow(port, max_queue=1, close_timeout=0.1) as slow:
            await slow.recv()
            tick = 0
            while hub.statistics().subscribers:
                tick += 1
                event = a_task(str(tick), tick, text="x" * 100_000)
                hub.deliver(Batch((event,), Cursor(tick, 5)))
                await asyncio.sleep(0.001)


async def test_hypercorn_serves_a_fast_and_a_slow_client() -> None:
    hub = new_hub(ring_bytes=100_000_000)
    async with hypercorn(application(hub)) as port:
        async with follow(port) as good:
            assert orjson.loads(await good.recv())["type"] == "connected"
            await good.send("hello")
            assert orjson.loads(await good.recv())["data"] == {"message": "hello"}

            async with follow(port, max_queue=1) as slow:
                await slow.recv()
                for n in range(1, 1501):
                    hub.deliver(Batch((a_task(str(n), n, text="x" * 10_000),), Cursor(n, 5)))
                    assert orjson.loads(await good.recv())["data"]["id"] == str(n)
                assert hub.statistics().lagging == 1
                received = [orjson.loads(await slow.recv())["data"]["id"] for _ in range(1500)]
                assert received == [str(n) for n in range(1, 1501)]

            await good.send(b"\x00")
            with pytest.raises(ConnectionClosed) as closed:
                await good.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1003
        while hub.statistics().subscribers:
            await asyncio.sleep(0.01)
