"""Clients of a server that takes leave of them, under Brain's own protocol classes and others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import NamedTuple

import orjson
import pytest
from starlette.applications import Starlette
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from brain.message.cursor import Cursor
from brain.message.event import Batch
from brain.session.draining import Draining
from brain.session.registry import SessionRegistry
from tests.session.event_stream_client import Stream, stream
from tests.transport.served import a_task, application, new_hub, served
from tests.transport.test_asgi import follow, hypercorn
from tests.transport.test_websocket import becomes

EACH = 8
"""Of WebSockets and of streams."""
SECONDS = 600.0
SLOWLY = round(20 * SECONDS)
"""For so many sessions: one is closed at each step."""


@asynccontextmanager
async def own(app: Starlette) -> AsyncIterator[int]:
    async with served(app) as (port, _):
        yield port


Server = Callable[[Starlette], AbstractAsyncContextManager[int]]


@pytest.fixture(params=[own, hypercorn], ids=["brain", "hypercorn"])
def server(request: pytest.FixtureRequest) -> Server:
    chosen: Server = request.param
    return chosen


class Received(NamedTuple):
    """What a client has received until it was closed."""

    keys: list[str]
    code: int


async def socket_received(client: ClientConnection) -> Received:
    keys: list[str] = []
    try:
        async for text in client:
            message = orjson.loads(text)
            if message["type"] == "run_update":
                keys.append(message["data"]["id"])
        code = client.close_code
    except ConnectionClosed as closed:
        code = closed.rcvd.code if closed.rcvd else None
    assert code is not None
    return Received(keys, code)


async def stream_received(client: Stream) -> Received:
    keys: list[str] = []
    while (frame := await client.frame()) is not None:
        if frame.get("type") == "closed":
            return Received(keys, frame["code"])
        if "key" in frame:
            keys.append(frame["key"][0])
    raise AssertionError("the stream ended without a reason")


async def test_events_go_on_to_the_clients_that_are_not_closed_yet(server: Server) -> None:
    hub = new_hub()
    app = application(hub)
    registry: SessionRegistry = app.state.registry
    async with server(app) as port, AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(follow(port)) for _ in range(EACH)]
        streams = [
            await stack.enter_async_context(stream(port, channel="tasks")) for _ in range(EACH)
        ]
        await becomes(lambda: registry.count == 2 * EACH)
        received = asyncio.gather(*map(socket_received, sockets), *map(stream_received, streams))

        draining = asyncio.create_task(Draining(registry, SECONDS, many=SLOWLY).close_sessions())
        await becomes(lambda: registry.count < 2 * EACH)
        hub.deliver(Batch((a_task("late", 1),), Cursor(1, 5)))
        left = registry.count
        await draining

        found = await received
    assert 0 < left < 2 * EACH
    assert {one.code for one in found} == {1012}
    assert sum(one.keys == ["late"] for one in found) == left
    assert sum(one.keys == [] for one in found) == 2 * EACH - left


async def test_a_client_that_connects_meanwhile_is_served_and_closed_too(server: Server) -> None:
    hub = new_hub()
    app = application(hub)
    registry: SessionRegistry = app.state.registry
    async with server(app) as port, follow(port) as first, follow(port) as second:
        await becomes(lambda: registry.count == 2)
        draining = asyncio.create_task(
            Draining(registry, SECONDS, many=SLOWLY // 4).close_sessions()
        )
        async with follow(port) as late:
            await becomes(lambda: registry.count)
            assert orjson.loads(await late.recv())["type"] == "connected"
            for client in (first, second, late):
                assert await socket_received(client) == ([], 1012)
        await draining


@pytest.mark.parametrize("seconds", [0.0, SECONDS])
async def test_all_are_closed_at_once_without_time_or_in_a_hurry(seconds: float) -> None:
    hub = new_hub()
    app = application(hub)
    registry: SessionRegistry = app.state.registry
    async with own(app) as port, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(follow(port)) for _ in range(EACH)]
        await becomes(lambda: registry.count == EACH)
        draining = Draining(registry, seconds, many=1)
        if seconds:
            draining.hurry()

        await draining.close_sessions()

        assert registry.count == 0
        assert [await socket_received(client) for client in clients] == [([], 1012)] * EACH


async def test_each_client_is_closed_with_the_code_of_its_wire_format() -> None:
    app = application(new_hub())
    registry: SessionRegistry = app.state.registry
    async with own(app) as port, follow(port) as one, follow(port, path="/?token=ann") as other:
        await becomes(lambda: registry.count == 2)

        await Draining(registry, seconds=0).close_sessions()

        assert [(await socket_received(client)).code for client in (one, other)] == [1012, 1001]


async def test_workers_that_stop_together_close_no_more_than_one_process_would() -> None:
    """At the first step: what is due at once."""
    left = {}
    for workers, is_replaced in ((1, False), (4, False), (4, True)):
        hub = new_hub()
        app = application(hub)
        registry: SessionRegistry = app.state.registry
        async with own(app) as port, AsyncExitStack() as stack:
            for _ in range(EACH):
                await stack.enter_async_context(follow(port))
            await becomes(lambda registry=registry: registry.count == EACH)
            draining = Draining(registry, SECONDS, workers=workers, many=SLOWLY * 4)
            draining.begin(is_replaced=is_replaced)
            closing = asyncio.create_task(draining.close_sessions())
            await asyncio.sleep(0)
            left[workers, is_replaced] = registry.count
            draining.hurry()
            await closing
    assert left == {(1, False): EACH - 4, (4, False): EACH - 1, (4, True): EACH - 4}
