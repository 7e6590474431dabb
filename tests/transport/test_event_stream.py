"""Streams of events over raw connections: what a client may do, and what it gets then."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from ssl import SSLContext
from typing import Any

import orjson
import pytest
from starlette.types import Receive, Scope, Send

from brain.hub.hub import Hub
from brain.message.cursor import Cursor
from brain.message.event import Batch
from brain.session.connection_limiter import ConnectionLimiter, ConnectionQuotas
from brain.settings import Settings
from tests.raw_websocket import SMALL_BUFFER_BYTES, RawClient, connected_to
from tests.session.event_stream_client import Stream, connected, request, stream
from tests.transport.served import a_task, application, limited, new_hub, served
from tests.transport.test_asgi import hypercorn
from tests.transport.test_websocket import batches, becomes

TASKS: dict[str, Any] = {"channel": "tasks"}
REQUEST = request(TASKS, {})
END = b"\r\n0\r\n\r\n"


def deliver(hub: Hub, number: int) -> None:
    hub.deliver(Batch((a_task(str(number), number),), Cursor(number, 5)))


async def key(client: Stream) -> str:
    """Return the key of the next row."""
    while (frame := await client.frame()) is not None:
        if "key" in frame:
            return str(frame["key"][0])
    raise AssertionError("the stream ended")


def keys(data: bytes) -> list[str]:
    """Return the keys of all rows in the bytes of a stream."""
    return re.findall(r'"key":\["(\d+)"\]', data.decode())


def tasks(port: int, ssl: SSLContext | None = None) -> AbstractAsyncContextManager[Stream]:
    return stream(port, ssl=ssl, **TASKS)


@asynccontextmanager
async def raw_stream(port: int, receive_buffer_bytes: int = 0) -> AsyncIterator[RawClient]:
    async with connected_to(port, receive_buffer_bytes) as raw:
        await raw.send(REQUEST)
        yield raw


async def received(raw: RawClient, end: bytes) -> bytes:
    """Return what comes up to some bytes."""
    data, start = bytearray(), 0
    async with asyncio.timeout(20):
        while data.find(end, start) < 0:
            start = max(0, len(data) - len(end))
            part = await raw.receive()
            assert part, bytes(data)
            data += part
    return bytes(data)


async def test_a_client_gets_events_without_a_task_of_its_own() -> None:
    hub = new_hub()
    async with served(application(hub)) as (port, server), tasks(port) as client:
        assert client.status == 200
        assert client.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert client.headers["cache-control"] == "no-cache, no-transform"
        assert client.headers["x-accel-buffering"] == "no"
        assert client.headers["connection"] == "close"
        await client.until("live")
        await becomes(lambda: not server.server_state.tasks)
        deliver(hub, 1)
        assert await key(client) == "1"


async def test_all_clients_of_a_topic_are_one_cohort_and_get_the_same_bytes() -> None:
    hub = new_hub()
    async with (
        served(application(hub)) as (port, _),
        raw_stream(port) as one,
        raw_stream(port) as other,
    ):
        for raw in (one, other):
            await received(raw, b'"op":"live"')
        assert hub.statistics().cohorts == 1
        deliver(hub, 1)
        events = [await received(raw, b"\n\n\r\n") for raw in (one, other)]
        assert events[0] == events[1]
        assert events[0].count(b"id: 1.5.1\n") == 1


async def test_a_client_of_http_1_0_gets_no_chunks_and_the_end_of_the_connection() -> None:
    hub = new_hub()
    async with AsyncExitStack() as stack:
        async with served(application(hub)) as (port, _):
            client = await stack.enter_async_context(connected(port))
            client.writer.write(request(TASKS, {}, version="1.0"))
            await client.begin()
            assert "transfer-encoding" not in client.headers
            await client.until("live")
            deliver(hub, 1)
            assert await key(client) == "1"
        closed = await client.frame()
        assert closed is not None and closed["code"] == 1012
        assert await client.frame() is None


async def test_a_head_request_is_answered_and_opens_no_stream() -> None:
    limiter = ConnectionLimiter(ConnectionQuotas(1, 1, 1, 1))
    async with (
        served(application(new_hub(), limiter=limiter)) as (port, _),
        connected(port) as client,
    ):
        for _ in range(2):
            client.writer.write(request(TASKS, {}, "HEAD"))
            await client.begin()
            assert client.status == 200
            assert client.headers["content-type"] == "text/event-stream; charset=utf-8"
            assert "content-length" not in client.headers
            assert limiter.count() == 0


async def test_a_stream_comes_after_the_answers_to_earlier_requests() -> None:
    hub = new_hub()
    async with served(application(hub)) as (port, _), connected(port) as client:
        client.writer.write(request({"channel": ""}, {}) + REQUEST)
        await client.begin()
        assert client.status == 400
        assert "channel: String should have at least 1 character" in await client.body()
        await client.begin()
        assert client.status == 200
        await client.until("live")


async def test_requests_behind_a_stream_are_not_answered_and_have_no_deadline() -> None:
    hub = new_hub()
    limits = limited(handshake_timeout_seconds=0.2)
    async with served(application(hub), limits) as (port, server), connected(port) as client:
        client.writer.write(REQUEST + REQUEST + b"GET /sse HTTP/1.1\r\n")
        await client.begin()
        await client.until("live")
        client.writer.write(b"Host: localhost\r\n\r\n" + REQUEST)
        await asyncio.sleep(0.5)
        deliver(hub, 1)
        assert await key(client) == "1"
        assert hub.statistics().subscribers == 1
        assert len(server.server_state.connections) == 1


async def test_a_client_that_floods_a_stream_is_aborted() -> None:
    hub = new_hub()
    async with served(application(hub)) as (port, _), raw_stream(port) as raw:
        await received(raw, b'"op":"live"')
        with pytest.raises(OSError):
            for _ in range(1000):
                await raw.send(b"x" * 10_000)
        await becomes(lambda: hub.statistics().subscribers == 0)


async def test_a_stream_outlives_all_limits_of_idle_connections_and_requests() -> None:
    hub = new_hub()
    limits = limited(handshake_timeout_seconds=0.1)
    async with (
        served(application(hub), limits, timeout_keep_alive=0) as (port, _),
        tasks(port) as client,
    ):
        await client.until("live")
        await asyncio.sleep(0.5)
        deliver(hub, 1)
        assert await key(client) == "1"


async def test_a_stream_ends_with_the_reason_and_the_last_chunk_when_the_server_stops() -> None:
    hub = new_hub()
    async with AsyncExitStack() as stack:
        async with served(application(hub)) as (port, _):
            raw = await stack.enter_async_context(raw_stream(port))
            await received(raw, b'"op":"live"')
        rest = await raw.receive_to_the_end()
    assert rest.endswith(END)
    assert b'data: {"type":"closed","code":1012,"reason":"Brain stops or restarts"}\n\n' in rest
    assert b"retry: " in rest
    assert hub.statistics().subscribers == 0


async def test_a_stream_that_opens_while_the_server_stops_ends_too() -> None:
    app = application(new_hub())
    is_asked, goes_on = asyncio.Event(), asyncio.Event()

    async def after_a_while(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            is_asked.set()
            await goes_on.wait()
        await app(scope, receive, send)

    async with served(after_a_while) as (port, server), raw_stream(port) as raw:
        await is_asked.wait()
        server.should_exit = True
        await becomes(lambda: not server.servers[0].is_serving())
        goes_on.set()
        assert (await raw.receive_to_the_end()).endswith(END)


async def test_a_client_that_goes_away_is_forgotten() -> None:
    hub = new_hub()
    limiter = ConnectionLimiter(ConnectionQuotas(9, 9, 9, 9))
    async with served(application(hub, limiter=limiter)) as (port, server):
        async with raw_stream(port) as raw:
            await received(raw, b'"op":"live"')
            assert limiter.count() == hub.statistics().subscribers == 1
            raw.reset()
            await becomes(lambda: limiter.count() == 0)
        async with raw_stream(port) as raw:
            await received(raw, b'"op":"live"')
            raw.end_sending()
            assert (await raw.receive_to_the_end()) == b""
        await becomes(lambda: not server.server_state.connections)
        assert limiter.count() == hub.statistics().subscribers == 0


async def test_a_client_that_goes_away_before_it_is_answered_is_forgotten() -> None:
    hub = new_hub()
    limiter = ConnectionLimiter(ConnectionQuotas(9, 9, 9, 9))
    app = application(hub, limiter=limiter)
    is_asked, goes_on = asyncio.Event(), asyncio.Event()

    async def after_a_while(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            is_asked.set()
            await goes_on.wait()
        await app(scope, receive, send)

    async with served(after_a_while) as (port, server):
        async with raw_stream(port):
            await is_asked.wait()
        await becomes(lambda: not server.server_state.connections)
        goes_on.set()
        await becomes(lambda: not server.server_state.tasks)
        assert limiter.count() == hub.statistics().subscribers == 0


async def test_a_client_that_reads_late_gets_everything_in_order() -> None:
    hub = new_hub(ring_bytes=100_000_000)
    async with served(application(hub)) as (port, _):
        async with raw_stream(port, SMALL_BUFFER_BYTES) as raw:
            data = await received(raw, b'"op":"live"')
            for batch in batches(2000, "x" * 5_000):
                hub.deliver(batch)
            assert hub.statistics().lagging == 1
            data += await received(raw, b'"key":["2000"]')
            assert keys(data) == [str(n) for n in range(1, 2001)]
            assert hub.statistics().lagging == 0


async def test_a_client_that_falls_off_the_ring_gets_the_reason_as_the_last_event() -> None:
    hub = new_hub(ring_bytes=1_000_000)
    async with (
        served(application(hub)) as (port, _),
        raw_stream(port, SMALL_BUFFER_BYTES) as raw,
    ):
        await received(raw, b'"op":"live"')
        for batch in batches(2000, "x" * 5_000):
            hub.deliver(batch)
        data = await raw.receive_to_the_end()
    got = keys(data)
    assert got == [str(n) for n in range(1, len(got) + 1)]
    assert len(got) < 2000
    (closed,) = re.findall(rb"data: (.*\"closed\".*)\n\n", data)
    assert orjson.loads(closed)["code"] == 4008
    assert data.endswith(END)


async def test_a_client_that_stops_reading_is_aborted_and_the_others_get_everything() -> None:
    hub = new_hub(ring_bytes=100_000_000)
    limits = limited(unread_timeout_seconds=0.5)
    async with (
        served(application(hub), limits) as (port, _),
        raw_stream(port, SMALL_BUFFER_BYTES) as raw,
        tasks(port) as good,
    ):
        await good.until("live")
        await received(raw, b'"op":"live"')
        for batch in batches(1000, "x" * 10_000):
            hub.deliver(batch)
            await key(good)
        await becomes(lambda: hub.statistics().subscribers == 1)
        assert not (await raw.receive_to_the_end()).endswith(END)


async def test_a_client_that_does_not_read_the_end_is_aborted() -> None:
    hub = new_hub(ring_bytes=100_000_000)
    app = application(hub)
    limits = limited(close_seconds=0.3)
    async with (
        served(app, limits) as (port, server),
        raw_stream(port, SMALL_BUFFER_BYTES) as raw,
    ):
        await received(raw, b'"op":"live"')
        for batch in batches(1000, "x" * 10_000):
            hub.deliver(batch)
        assert hub.statistics().lagging == 1
        (session,) = app.state.registry._open.values()
        session.close(4408, "a test")
        assert server.server_state.connections
        await becomes(lambda: not server.server_state.connections)


async def test_above_a_quota_a_stream_is_refused_and_may_come_later() -> None:
    limiter = ConnectionLimiter(ConnectionQuotas(1, 9, 9, 9))
    async with served(application(new_hub(), limiter=limiter)) as (port, _):
        async with tasks(port) as client:
            await client.until("live")
            async with tasks(port) as refused:
                assert refused.status == 503
                assert refused.headers["retry-after"] == "5"
        await becomes(lambda: limiter.count() == 0)
        async with tasks(port) as client:
            assert client.status == 200


async def test_a_session_that_cannot_open_ends_the_connection_and_is_not_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limiter = ConnectionLimiter(ConnectionQuotas(9, 9, 9, 9))

    def fail(self: object) -> None:
        raise RuntimeError("a mistake")

    monkeypatch.setattr("brain.session.stream_session.StreamSession._confirm_subscription", fail)
    async with (
        served(application(new_hub(), limiter=limiter)) as (port, _),
        raw_stream(port) as raw,
    ):
        assert not (await raw.receive_to_the_end()).endswith(END)
        assert limiter.count() == 0


async def test_after_many_streams_nothing_is_left() -> None:
    hub = new_hub()
    limiter = ConnectionLimiter(ConnectionQuotas(99, 99, 99, 99))
    before = len(asyncio.all_tasks())
    async with served(application(hub, limiter=limiter)) as (port, server):
        at_rest = len(asyncio.all_tasks())
        for _ in range(20):
            async with AsyncExitStack() as stack:
                for number in range(20):
                    raw = await stack.enter_async_context(connected_to(port))
                    await raw.send(REQUEST if number % 4 else REQUEST[:20])
                    if number % 2:
                        await received(raw, b'"op":"live"')
                hub.deliver(Batch((), hub.cursor))
        await becomes(lambda: not server.server_state.connections)
        assert hub.statistics()._replace(events=0) == (0, 0, 0, 0, 0, (0, 0, 0, 0), 0)
        assert limiter.count() == 0
        await becomes(lambda: len(asyncio.all_tasks()) == at_rest)
    assert len(asyncio.all_tasks()) == before


async def test_hypercorn_serves_a_fast_and_a_slow_client() -> None:
    hub = new_hub(ring_bytes=100_000_000)
    async with hypercorn(application(hub)) as port, tasks(port) as good:
        assert good.headers["content-type"] == "text/event-stream; charset=utf-8"
        await good.until("live")
        async with raw_stream(port, SMALL_BUFFER_BYTES) as slow:
            data = await received(slow, b'"op":"live"')
            for batch in batches(1500, "x" * 10_000):
                hub.deliver(batch)
                await key(good)
            assert hub.statistics().lagging == 1
            data += await received(slow, b'"key":["1500"]')
            assert keys(data) == [str(n) for n in range(1, 1501)]
        await becomes(lambda: hub.statistics().subscribers == 1)


async def test_hypercorn_ends_a_stream_with_the_reason() -> None:
    app = application(new_hub())
    async with hypercorn(app) as port, tasks(port) as client:
        await client.until("live")
        (session,) = app.state.registry._open.values()
        session.close(4401, "the token has expired")
        closed = await client.frame()
        assert closed is not None and closed["code"] == 4401


async def test_under_hypercorn_a_client_that_stops_reading_is_aborted() -> None:
    hub = new_hub(ring_bytes=100_000_000)
    settings = Settings(unread_timeout_seconds=0.5)
    async with (
        hypercorn(application(hub, settings=settings)) as port,
        raw_stream(port, SMALL_BUFFER_BYTES) as raw,
    ):
        await received(raw, b'"op":"live"')
        number = 0
        while hub.statistics().subscribers:
            number += 1
            hub.deliver(
                Batch((a_task(str(number), number, text="x" * 100_000),), Cursor(number, 5))
            )
            await asyncio.sleep(0.001)
