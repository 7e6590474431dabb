"""Brain's protocol classes under the real uvicorn, with clients that misbehave."""

from __future__ import annotations

import asyncio
import gc
import logging
from contextlib import AsyncExitStack
from typing import Any, cast

import orjson
import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from brain.errors import WrongUvicorn
from brain.message.cursor import Cursor
from brain.message.event import Batch
from brain.session.connection_limiter import ConnectionLimiter, ConnectionQuotas
from brain.settings import Settings
from brain.transport.http import MOST_HEAD_BYTES, MOST_WAITING_REQUESTS, HttpProtocol
from brain.transport.websocket import EXTENSION, require_uvicorn
from tests.raw_websocket import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    SMALL_BUFFER_BYTES,
    TEXT,
    RawClient,
    client_frame,
    connected_to,
    handshake,
    upgraded,
)
from tests.transport.served import a_task, application, limited, new_hub, served


def client(port: int, path: str = "/ws") -> connect:
    return connect(f"ws://127.0.0.1:{port}{path}", proxy=None, compression=None, max_queue=None)


async def received(connection: ClientConnection) -> dict[str, object]:
    async with asyncio.timeout(10):
        message: dict[str, object] = orjson.loads(await connection.recv())
    return message


async def next_message(raw: RawClient) -> dict[str, Any]:
    text = await raw.next_text()
    assert text is not None
    message: dict[str, Any] = orjson.loads(text)
    return message


async def becomes(condition: object) -> None:
    assert callable(condition)
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


def batches(count: int, text: str = "") -> list[Batch]:
    """Return this number of batches, each of one task."""
    return [Batch((a_task(str(n), n, text=text),), Cursor(n, 5)) for n in range(1, count + 1)]


async def test_a_client_gets_events_and_replies_without_a_task_of_its_own() -> None:
    hub = new_hub()
    async with served(application(hub)) as (port, server), client(port) as connection:
        assert (await received(connection))["type"] == "connected"
        await becomes(lambda: not server.server_state.tasks)

        hub.deliver(Batch((a_task("a"), a_task("b", 1, 2)), Cursor(1, 5)))
        assert [(await received(connection))["data"]["id"] for _ in "ab"] == ["a", "b"]  # type: ignore[index]
        await connection.send("hello")
        assert (await received(connection))["data"] == {"message": "hello"}


async def test_a_message_in_fragments_is_one_message() -> None:
    async with served(application(new_hub())) as (port, _), client(port) as connection:
        await received(connection)
        await connection.send(iter(["one ", "mess", "age"]))

        assert (await received(connection))["data"] == {"message": "one message"}


async def test_a_message_sent_before_the_endpoint_is_reached_is_answered() -> None:
    app = application(new_hub())

    async def after_a_while(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await asyncio.sleep(0.2)
        await app(scope, receive, send)

    async with served(after_a_while) as (port, _), connected_to(port) as raw:
        await raw.send(handshake("/ws"))
        await asyncio.sleep(0.1)
        await raw.send_frame(TEXT, b"early")
        await raw.receive_handshake()

        assert (await next_message(raw))["type"] == "connected"
        assert (await next_message(raw))["data"] == {"message": "early"}


async def test_what_is_no_frame_before_the_handshake_is_answered_ends_without_a_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = application(new_hub())
    is_asked, may_answer = asyncio.Event(), asyncio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            is_asked.set()
            await may_answer.wait()
        await app(scope, receive, send)

    async with served(slow) as (port, server), connected_to(port) as raw:
        await raw.send(handshake("/ws"))
        await is_asked.wait()
        await raw.send(b"\xff" * 10)
        may_answer.set()
        await raw.receive_handshake()
        assert await raw.read_until_closed() == 1002
        await becomes(lambda: not server.server_state.connections)

    assert [each for each in caplog.records if each.levelno >= logging.ERROR] == []


async def test_a_client_that_stops_reading_is_aborted_and_the_others_get_everything() -> None:
    hub = new_hub(ring_bytes=100_000_000)
    limits = limited(unread_timeout_seconds=0.5)
    async with (
        served(application(hub), limits) as (port, _),
        upgraded(port, receive_buffer_bytes=SMALL_BUFFER_BYTES) as raw,
        client(port) as good,
    ):
        await received(good)
        await becomes(lambda: hub.statistics().subscribers == 2)
        for batch in batches(1000, "x" * 10_000):
            hub.deliver(batch)
            await received(good)

        await becomes(lambda: hub.statistics().subscribers == 1)
        assert await raw.read_until_closed() is None


async def test_a_client_that_reads_late_gets_everything_in_order() -> None:
    hub = new_hub(ring_bytes=100_000_000)
    async with (
        served(application(hub)) as (port, _),
        upgraded(port, receive_buffer_bytes=SMALL_BUFFER_BYTES) as raw,
    ):
        assert (await next_message(raw))["type"] == "connected"
        await becomes(lambda: hub.statistics().subscribers == 1)
        for batch in batches(2000, "x" * 5_000):
            hub.deliver(batch)
        assert hub.statistics().lagging == 1

        messages = [await next_message(raw) for _ in range(2000)]
        assert [message["data"]["id"] for message in messages] == [str(n) for n in range(1, 2001)]
        assert hub.statistics().lagging == 0


async def test_a_client_that_does_not_answer_a_ping_is_aborted_even_with_unread_data() -> None:
    hub = new_hub(ring_bytes=100_000_000)
    async with (
        served(application(hub), limited(ping_seconds=0.3)) as (port, _),
        upgraded(port, receive_buffer_bytes=SMALL_BUFFER_BYTES),
    ):
        await becomes(lambda: hub.statistics().subscribers == 1)
        for batch in batches(1000, "x" * 10_000):
            hub.deliver(batch)

        await becomes(lambda: hub.statistics().subscribers == 0)


async def test_a_client_that_does_not_answer_a_close_frame_is_aborted() -> None:
    hub = new_hub()
    limits = limited(close_seconds=0.3)
    async with (
        served(application(hub), limits) as (port, server),
        upgraded(port) as raw,
    ):
        await raw.send_frame(BINARY, b"\x00")

        await raw.read_to_the_end()
        assert raw.close_code == 1003
        await becomes(lambda: not server.server_state.connections)


async def test_a_client_that_sends_a_close_frame_and_reads_nothing_is_aborted() -> None:
    hub = new_hub(ring_bytes=100_000_000)
    limits = limited(close_seconds=0.3)
    async with (
        served(application(hub), limits) as (port, server),
        upgraded(port, receive_buffer_bytes=SMALL_BUFFER_BYTES) as raw,
    ):
        await becomes(lambda: hub.statistics().subscribers == 1)
        for batch in batches(1000, "x" * 10_000):
            hub.deliver(batch)
        await raw.send_frame(CLOSE, (1000).to_bytes(2))

        await becomes(lambda: not server.server_state.connections)


async def test_after_a_close_frame_nothing_more_is_sent() -> None:
    hub = new_hub(ring_bytes=100_000_000)
    async with (
        served(application(hub)) as (port, server),
        upgraded(port, receive_buffer_bytes=SMALL_BUFFER_BYTES) as raw,
    ):
        await becomes(lambda: hub.statistics().subscribers == 1)
        (connection,) = server.server_state.connections
        more = iter(batches(10_000, "x" * 10_000))
        while not connection.transport.get_write_buffer_size():
            hub.deliver(next(more))
        await raw.send_frame(CLOSE, (1000).to_bytes(2))
        await becomes(connection.transport.is_closing)
        hub.deliver(next(more))

        assert (await raw.receive_to_the_end()).endswith(b"\x88\x02\x03\xe8")


@pytest.mark.parametrize(
    ("opcode", "data", "code"),
    [
        (BINARY, b"\x00", 1003),
        (TEXT, b"\xff\xfe", 1007),
        (TEXT, b"x" * 5000, 1009),
        (TEXT, b"[" * 50, 4501),
        (CONTINUATION, b"x", 1002),
    ],
)
async def test_a_message_that_cannot_be_accepted_closes_the_connection_with_a_code(
    opcode: int, data: bytes, code: int
) -> None:
    limits = limited(message_bytes=4096)
    async with served(application(new_hub()), limits) as (port, server), upgraded(port) as raw:
        await raw.send_frame(opcode, data)
        assert await raw.read_until_closed() == code
        await raw.send_frame(CLOSE, code.to_bytes(2))
        await raw.read_to_the_end()
        await becomes(lambda: not server.server_state.connections)


async def test_a_message_arrives_in_any_pieces_with_pings_between_its_fragments() -> None:
    async with served(application(new_hub())) as (port, _), upgraded(port) as raw:
        await next_message(raw)
        fragments = (
            client_frame(b"one ", is_final=False, mask=b"abcd"),
            client_frame(b"ping", PING),
            client_frame(b"message", CONTINUATION),
            client_frame(b"next"),
        )
        for byte in b"".join(fragments):
            await raw.send(bytes([byte]))
            await asyncio.sleep(0)

        assert await raw.next_frame() == (PONG, b"ping")
        assert (await next_message(raw))["data"] == {"message": "one message"}
        assert (await next_message(raw))["data"] == {"message": "next"}


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ((client_frame(b"a", is_final=False), client_frame(b"b")), 1002),
        ((client_frame(b"a", is_final=False), client_frame((1000).to_bytes(2), CLOSE)), 1000),
        (
            (client_frame(b"x" * 3000, is_final=False), client_frame(b"x" * 3000, CONTINUATION)),
            1009,
        ),
        ((b"\x81\x00",), 1002),
    ],
)
async def test_frames_in_a_wrong_order_close_the_connection_and_a_close_frame_is_echoed(
    frames: tuple[bytes, ...], code: int
) -> None:
    limits = limited(message_bytes=4096, close_seconds=1000)
    async with served(application(new_hub()), limits) as (port, server), upgraded(port) as raw:
        await raw.send(b"".join(frames))

        assert await raw.read_until_closed() == code
        await becomes(lambda: not server.server_state.connections)


async def test_an_endpoint_that_fails_before_it_takes_a_connection_over_ends_it_alone() -> None:
    """The socket that a connection writes to is not closed twice: it may be another one by then."""
    may_end = asyncio.Event()

    async def failing(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        scope["extensions"][EXTENSION].connection()
        if scope["path"] == "/fails":
            raise RuntimeError("a mistake")
        await may_end.wait()

    async with served(failing, lifespan="off") as (port, server), connected_to(port) as other:
        await other.send(handshake("/"))
        await other.receive_handshake()
        async with connected_to(port) as raw:
            await raw.send(handshake("/fails"))
            await raw.receive_handshake()
            await raw.receive_to_the_end()
        await becomes(lambda: len(server.server_state.connections) == 1)
        gc.collect()
        assert other.is_open
        may_end.set()


@pytest.mark.parametrize("opcode", [TEXT, PING, PONG, CONTINUATION])
async def test_a_client_that_exceeds_the_rate_limit_is_closed_with_4029(opcode: int) -> None:
    """The session counts messages, and the transport pings, pongs and fragments."""
    app = application(new_hub(), settings=Settings(messages_per_second=10))
    limits = limited(frames_per_second=10, fragments=1000)
    async with served(app, limits) as (port, _), upgraded(port) as raw:
        if opcode == CONTINUATION:
            await raw.send_frame(TEXT, is_final=False)
        for _ in range(30):
            await raw.send_frame(opcode, is_final=opcode != CONTINUATION)

        assert await raw.read_until_closed() == 4029


@pytest.mark.parametrize("opcode", [TEXT, PONG])
async def test_a_client_that_goes_on_flooding_is_aborted(
    opcode: int,
) -> None:
    app = application(new_hub(), settings=Settings(messages_per_second=10))
    limits = limited(frames_per_second=10, close_seconds=1000)
    async with served(app, limits) as (port, server), upgraded(port) as raw:
        with pytest.raises(OSError):
            while True:
                await raw.send(100 * client_frame(b"x" * 100, opcode))
        await becomes(lambda: not server.server_state.connections)


async def test_a_message_in_too_many_fragments_closes_the_connection() -> None:
    limits = limited(frames_per_second=1000, fragments=10)
    async with served(application(new_hub()), limits) as (port, _), upgraded(port) as raw:
        await raw.send_frame(TEXT, is_final=False)
        for _ in range(20):
            await raw.send_frame(CONTINUATION, is_final=False)

        assert await raw.read_until_closed() == 1009


@pytest.mark.parametrize("opcode", [TEXT, PING])
async def test_a_client_that_does_not_read_replies_is_aborted(opcode: int) -> None:
    """Otherwise the replies would be buffered without limit."""
    hub = new_hub()
    limits = limited(frames_per_second=10**9, close_seconds=0.3)
    unlimited = Settings(messages_per_second=10**9, bytes_per_second=10**12)
    async with (
        served(application(hub, settings=unlimited), limits) as (port, _),
        upgraded(port, receive_buffer_bytes=SMALL_BUFFER_BYTES) as raw,
    ):
        frame = client_frame(b"x" * (50_000 if opcode == TEXT else 125), opcode)
        with pytest.raises(OSError):
            for _ in range(3_000):
                await raw.send(100 * frame)
        await becomes(lambda: hub.statistics().subscribers == 0)


async def reading_application(scope: Scope, receive: Receive, send: Send) -> None:
    """Read the body of a request, and answer."""
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"a" * 20_000_000})


CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


async def test_what_follows_a_body_is_no_header() -> None:
    headers: list[tuple[bytes, bytes]] = []

    async def noting(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body"):
            pass
        headers.extend(scope["headers"])
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    async with served(noting, lifespan="off") as (port, _), connected_to(port) as raw:
        await raw.send(CHUNKED + b"1\r\nx\r\n0\r\nAuthorization: Bearer t\r\nHost: b\r\n\r\n")
        async with asyncio.timeout(10):
            assert (await raw.receive()).startswith(b"HTTP/1.1 204 ")

    assert headers == [(b"host", b"a"), (b"transfer-encoding", b"chunked")]


@pytest.mark.parametrize(
    ("beginning", "part"),
    [(b"0\r\n", b"X: " + b"y" * 1000 + b"\r\n"), (b"0\r\nX: ", b"y" * 1000), (b"5;", b"y" * 1000)],
)
async def test_a_chunked_body_with_endless_trailers_or_extensions_is_aborted(
    beginning: bytes, part: bytes
) -> None:
    async with served(reading_application, lifespan="off") as (port, _), connected_to(port) as raw:
        with pytest.raises(OSError):
            await raw.send(CHUNKED + beginning)
            for _ in range(MOST_HEAD_BYTES):
                await raw.send(part)


async def test_a_long_body_in_tiny_chunks_is_read_to_its_end() -> None:
    async with served(reading_application, lifespan="off") as (port, _), connected_to(port) as raw:
        await raw.send(CHUNKED + b"1\r\nx\r\n" * MOST_HEAD_BYTES + b"0\r\n\r\n")
        async with asyncio.timeout(10):
            assert (await raw.receive()).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("part", [b"", b"a", b"a" * 200_000])
async def test_a_client_that_sends_no_complete_body_is_aborted(part: bytes) -> None:
    limits = limited(handshake_timeout_seconds=0.3)
    async with served(reading_application, limits, lifespan="off") as (port, server):
        async with connected_to(port) as raw:
            await raw.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n" + part)
            async with asyncio.timeout(10):
                assert await raw.receive_to_the_end() == b""
        await becomes(lambda: not server.server_state.connections)


async def test_a_body_that_comes_in_time_leaves_nothing_behind() -> None:
    limits = limited(handshake_timeout_seconds=0.3)
    async with served(reading_application, limits, lifespan="off") as (port, _):
        async with connected_to(port) as raw:
            await raw.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\na")
            received = 0
            async with asyncio.timeout(10):
                while received < 20_000_000:
                    received += len(await raw.receive())


async def test_a_client_that_reads_no_answer_is_aborted() -> None:
    limits = limited(unread_timeout_seconds=0.3)
    async with served(reading_application, limits, lifespan="off") as (port, server):
        async with connected_to(port, SMALL_BUFFER_BYTES) as raw:
            await raw.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            await becomes(lambda: server.server_state.connections)
            await becomes(lambda: not server.server_state.connections)


@pytest.mark.parametrize("beginning", [b"", b"GET /ws HTTP/1.1\r\nHost: local"])
async def test_a_client_that_sends_no_complete_head_is_aborted(beginning: bytes) -> None:
    limits = limited(handshake_timeout_seconds=0.3)
    async with (
        served(application(new_hub()), limits) as (port, server),
        connected_to(port) as raw,
    ):
        await raw.send(beginning)

        assert await raw.receive_to_the_end() == b""
        await becomes(lambda: not server.server_state.connections)


async def test_a_client_that_sends_its_second_head_too_slowly_is_aborted() -> None:
    limits = limited(handshake_timeout_seconds=0.3)
    async with served(application(new_hub()), limits) as (port, _), connected_to(port) as raw:
        await raw.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b" 404 " in await raw.receive()
        await asyncio.sleep(0.4)  # kept alive: the timeout of the first head is over
        with pytest.raises(OSError):
            for _ in range(100):
                await raw.send(b"G" if _ == 0 else b"E")
                await asyncio.sleep(0.05)


REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"


async def early_application(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer before the body of a request has come."""
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]}
    )
    await send({"type": "http.response.body"})


@pytest.mark.parametrize(
    ("request_", "later"),
    [
        (REQUEST, b"\r\n"),
        (REQUEST, b"G"),
        (POST % 5, b"body\n"),
        (POST % 5, b"body\n\r\n"),
        (REQUEST[:-2] + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n", b"x"),
    ],
)
async def test_a_client_that_sends_something_after_an_answer_and_no_request_is_aborted(
    request_: bytes, later: bytes
) -> None:
    """More of the same, here empty lines, does not move its deadline."""
    limits = limited(handshake_timeout_seconds=0.5)
    async with served(early_application, limits, lifespan="off") as (port, server):
        async with connected_to(port) as raw:
            await raw.send(request_)
            assert (await raw.receive()).startswith(b"HTTP/1.1 200 ")
            await raw.send(later)
            with pytest.raises(OSError):
                for _ in range(100):
                    await asyncio.sleep(0.05)
                    await raw.send(b"\r\n")
        await becomes(lambda: not server.server_state.connections)


async def test_endless_empty_lines_after_an_answer_are_cut() -> None:
    async with served(early_application, lifespan="off") as (port, _), connected_to(port) as raw:
        await raw.send(REQUEST)
        await raw.receive()
        with pytest.raises(OSError):
            for _ in range(100 * MOST_HEAD_BYTES):
                await raw.send(b"\r\n" * 1000)


async def test_a_body_that_comes_after_its_answer_does_not_count_as_head() -> None:
    size = 3 * MOST_HEAD_BYTES
    async with served(early_application, lifespan="off") as (port, _), connected_to(port) as raw:
        await raw.send(POST % size)
        await raw.receive()
        for _ in range(3):
            await raw.send(b"x" * MOST_HEAD_BYTES)
            await asyncio.sleep(0.05)
        await raw.send(REQUEST)
        async with asyncio.timeout(10):
            assert (await raw.receive()).startswith(b"HTTP/1.1 200 ")


async def test_a_handshake_on_a_connection_that_was_kept_alive_has_no_deadline_afterwards() -> None:
    limits = limited(handshake_timeout_seconds=0.3)
    async with served(application(new_hub()), limits) as (port, _), connected_to(port) as raw:
        await raw.send(REQUEST)
        await raw.receive()
        await raw.send(b"\r\n")
        await raw.send(handshake("/ws"))
        await raw.receive_handshake()
        await next_message(raw)
        await asyncio.sleep(0.6)
        await raw.send_frame(TEXT, b"hello")

        assert (await next_message(raw))["data"] == {"message": "hello"}


async def test_a_handshake_before_the_earlier_request_is_answered_is_aborted() -> None:
    """The rest of the answer would be sent among the frames."""

    async def both(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
        else:
            await reading_application(scope, receive, send)

    async with (
        served(both, lifespan="off") as (port, server),
        connected_to(port, SMALL_BUFFER_BYTES) as raw,
    ):
        await raw.send(REQUEST + handshake("/ws"))

        async with asyncio.timeout(10):
            assert b" 101 " not in await raw.receive_to_the_end()
        await becomes(lambda: not server.server_state.connections)


@pytest.mark.parametrize("end", [b"", b"garbage\r\n\r\n", handshake("/ws")])
async def test_a_client_that_vanishes_ends_each_of_its_requests(end: bytes) -> None:
    """Otherwise an answer would be written to a connection that is no more: an error each."""
    started = asyncio.Event()
    received: list[str] = []

    async def waiting(scope: Scope, receive: Receive, send: Send) -> None:
        started.set()
        received.extend([(await receive())["type"] for _ in range(2)])

    async with served(waiting, lifespan="off") as (port, server):
        async with connected_to(port) as raw:
            await raw.send(REQUEST * 20 + end)
            await started.wait()
            raw.reset()
        await becomes(lambda: not server.server_state.connections)
        await becomes(lambda: not server.server_state.tasks)

    assert received == ["http.request", "http.disconnect"]


async def test_a_client_that_sends_requests_and_awaits_no_answer_is_aborted() -> None:
    async def silent(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    async with served(silent, lifespan="off") as (port, server), connected_to(port) as raw:
        await raw.send(REQUEST * (1 + MOST_WAITING_REQUESTS))
        await becomes(lambda: pipelines(server) == [MOST_WAITING_REQUESTS])
    async with served(silent, lifespan="off") as (port, server), connected_to(port) as raw:
        await raw.send(REQUEST * (2 + MOST_WAITING_REQUESTS))
        async with asyncio.timeout(10):
            assert await raw.receive_to_the_end() == b""


def pipelines(server: uvicorn.Server) -> list[int]:
    """Return how many requests wait on each connection."""
    return [len(cast(HttpProtocol, each).pipeline) for each in server.server_state.connections]


async def test_an_answer_that_ends_unfinished_ends_the_connection_and_is_no_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """So a snapshot ends that a client reads too slowly."""

    async def unfinished(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async with served(unfinished, lifespan="off") as (port, server):
        async with connected_to(port) as raw:
            await raw.send(REQUEST)
            async with asyncio.timeout(10):
                assert not (await raw.receive_to_the_end()).endswith(b"0\r\n\r\n")
        await becomes(lambda: not server.server_state.connections)

    assert [each for each in caplog.records if each.levelno >= logging.ERROR] == []


async def test_a_long_body_does_not_count_as_head() -> None:
    async with served(application(new_hub())) as (port, _), asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        size = 3 * MOST_HEAD_BYTES
        head = f"POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n"
        writer.write(head.encode() + b"x" * size)
        assert (await reader.readline()).startswith(b"HTTP/1.1 404 ")
        writer.close()


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [("/ws?" + "x" * 9000, (), 414), ("/ws", ("X: " + "x" * 9000,), 431)],
)
async def test_a_handshake_with_too_long_a_line_is_refused(
    path: str, headers: tuple[str, ...], status: int
) -> None:
    async with served(application(new_hub())) as (port, server), connected_to(port) as raw:
        await raw.send(handshake(path, *headers))

        assert (await raw.receive_to_the_end()).startswith(f"HTTP/1.1 {status} ".encode())
        await becomes(lambda: not server.server_state.connections)


async def test_a_request_with_an_endless_head_is_aborted() -> None:
    async with served(application(new_hub())) as (port, _), connected_to(port) as raw:
        with pytest.raises(OSError):
            await raw.send(b"GET /ws HTTP/1.1\r\n")
            for _ in range(MOST_HEAD_BYTES):
                await raw.send(b"X: " + b"y" * 1000 + b"\r\n")


async def test_after_many_connections_nothing_is_left() -> None:
    hub = new_hub()
    limiter = ConnectionLimiter(ConnectionQuotas(1000, 1000, 1000, 1000))
    before = len(asyncio.all_tasks())
    async with served(application(hub, limiter=limiter)) as (port, server):
        at_rest = len(asyncio.all_tasks())
        for _ in range(20):
            async with AsyncExitStack() as stack:
                for number in range(20):
                    if number % 2:
                        connection = await stack.enter_async_context(client(port))
                        await received(connection)
                    else:
                        raw = await stack.enter_async_context(connected_to(port))
                        await raw.send(handshake("/ws"))
                        if number % 4:
                            await raw.receive_handshake()
                hub.deliver(Batch((), hub.cursor))
        await becomes(lambda: not server.server_state.connections)

        assert hub.statistics()._replace(events=0) == (0, 0, 0, 0, 0, (0, 0, 0, 0), 0)
        assert limiter.count() == 0
        await becomes(lambda: len(asyncio.all_tasks()) == at_rest)
    assert len(asyncio.all_tasks()) == before


@pytest.mark.parametrize(("path", "code"), [("/ws", 1012), ("/?token=ann", 1001)])
async def test_clients_are_closed_with_a_code_when_the_server_stops(path: str, code: int) -> None:
    hub = new_hub()
    async with AsyncExitStack() as stack:
        async with served(application(hub)) as (port, _):
            url = f"ws://127.0.0.1:{port}{path}"
            connection = await stack.enter_async_context(connect(url, proxy=None))
            await becomes(lambda: hub.statistics().subscribers == 1)
            if path == "/ws":
                await received(connection)
        with pytest.raises(ConnectionClosed) as closed:
            await received(connection)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == code
        assert hub.statistics().subscribers == 0


async def test_an_application_that_fails_ends_the_connection() -> None:
    """The client receives a response; the reason is logged."""

    async def failing(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("a mistake")

    async with served(failing, lifespan="off") as (port, _), connected_to(port) as raw:
        await raw.send(handshake("/ws"))
        assert b" 500 " in await raw.receive_to_the_end()


def test_another_uvicorn_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    require_uvicorn()
    monkeypatch.setattr(uvicorn, "__version__", "0.55.0")
    with pytest.raises(WrongUvicorn, match=r"uvicorn 0\.55\.0 is installed.*pip install") as error:
        require_uvicorn()
    assert "\n" not in str(error.value)
