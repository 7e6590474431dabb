from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import pytest
import uvicorn

from brain.app import build_app
from brain.settings import Settings
from tests.raw_websocket import RawClient, close_frame, connected_to, handshake
from tests.transport.served import served

PATIENCE_SECONDS = 20.0
CONNECTIONS = 5

OURS = ("brain.", "uvicorn.", "websockets.", "httptools.", "starlette.")


class Visit(NamedTuple):
    """What a client sends, and with what each answer ends that it waits for."""

    request: bytes
    answer: bytes
    frames: tuple[tuple[bytes, bytes], ...] = ()


def http(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


def subscribe(**options: object) -> bytes:
    frame = {"type": "subscribe", "id": "a", "channel": "tasks", **options}
    return json.dumps(frame).encode()


VISITS = {
    "/ws": Visit(handshake("/ws"), b"connected"),
    "/ws with a cursor": Visit(handshake("/ws?cursor="), b"connected"),
    "/ws with rows": Visit(handshake("/ws?snapshot=1&channel=tasks"), b"snapshot"),
    "/ws with a lost cursor": Visit(handshake("/ws?cursor=1.2.3"), b"reset"),
    "/ws that is refused": Visit(handshake("/ws?where=no"), b"400 Bad Request"),
    "/ws/v1": Visit(handshake("/ws/v1"), b"hello", ((subscribe(), b"subscribed"),)),
    "/ws/v1 with a bad frame": Visit(handshake("/ws/v1"), b"hello", ((b"{", b"error"),)),
    "/ws/v1 with rows": Visit(
        handshake("/ws/v1"), b"hello", ((subscribe(snapshot=True), b'"live"'),)
    ),
    "/sse": Visit(http("/sse?channel=tasks"), b"subscribed"),
    "/sse with rows": Visit(http("/sse?channel=tasks&snapshot=1"), b"live"),
    "/sse that is refused": Visit(http("/sse"), b"HTTP/1.1 400"),
    "/api": Visit(http("/api/brain/status/ws"), b"HTTP/1.1 200"),
}


@pytest.fixture
async def server(database: str) -> AsyncIterator[tuple[int, uvicorn.Server]]:
    async with served(build_app(database, Settings())) as (port, server):
        yield port, server


async def received(client: RawClient, end: bytes) -> None:
    """Return once a client has received this."""
    data = b""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while end not in data:
            part = await client.receive()
            assert part, data
            data += part


async def visit(port: int, visit: Visit, *, is_polite: bool) -> None:
    async with connected_to(port) as client:
        await client.send(visit.request)
        await received(client, visit.answer)
        for payload, answer in visit.frames:
            await client.send_frame(1, payload)
            await received(client, answer)
        if is_polite:
            await client.send(close_frame())
            client.end_sending()
            await client.receive_to_the_end()


async def until_all_have_left(server: uvicorn.Server) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while server.server_state.connections or server.server_state.tasks:
            await asyncio.sleep(0.01)


@contextmanager
def garbage_kept() -> Iterator[None]:
    """Have collections keep what they find, and let none happen by itself."""
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


@pytest.mark.parametrize("is_polite", [True, False])
@pytest.mark.parametrize("name", VISITS)
async def test_a_closed_connection_leaves_no_reference_cycle(
    server: tuple[int, uvicorn.Server], name: str, is_polite: bool
) -> None:
    port, running = server
    await visit(port, VISITS[name], is_polite=is_polite)  # what the first one makes may stay
    await until_all_have_left(running)
    with garbage_kept():
        for _ in range(CONNECTIONS):
            await visit(port, VISITS[name], is_polite=is_polite)
        await until_all_have_left(running)
        gc.collect()
        # A socket of asyncio's own event loop leaves one of asyncio's.
        modules = [str(getattr(one, "__module__", "")) for one in gc.garbage]

    assert [module for module in modules if f"{module}.".startswith(OURS)] == []
