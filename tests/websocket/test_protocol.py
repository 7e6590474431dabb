"""Brain's protocol classes under the real uvicorn, and clients that try them."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import orjson
import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.frames import Opcode

from brain.errors import WrongUvicorn
from brain.message.cursor import Cursor
from brain.message.event import Batch
from brain.message.frames import texts_of
from brain.websocket.doorkeeper import Doorkeeper, DoorLimits
from brain.websocket.protocol import MOST_HEAD_BYTES, ConnectionLimits, require_uvicorn
from tests.websocket.raw import close_code, raw_client
from tests.websocket.served import a_task, application, new_hub, served


def client(port: int, path: str = "/ws") -> connect:
    return connect(f"ws://127.0.0.1:{port}{path}", proxy=None, compression=None, max_queue=None)


async def heard(connection: ClientConnection) -> dict[str, object]:
    async with asyncio.timeout(10):
        message: dict[str, object] = orjson.loads(await connection.recv())
    return message


async def becomes(condition: object) -> None:
    assert callable(condition)
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


def batches(count: int, text: str = "") -> list[Batch]:
    """Return so many, of one task each."""
    return [Batch((a_task(str(n), n, text=text),), Cursor(n, 5)) for n in range(1, count + 1)]


async def test_a_client_is_told_and_answered_without_a_task_of_its_own() -> None:
    hub = new_hub()
    async with served(application(hub)) as (port, server), client(port) as connection:
        assert (await heard(connection))["type"] == "connected"
        await becomes(lambda: not server.server_state.tasks)

        hub.deliver(Batch((a_task("a"), a_task("b", 1, 2)), Cursor(1, 5)))
        assert [(await heard(connection))["data"]["id"] for _ in "ab"] == ["a", "b"]  # type: ignore[index]
        await connection.send("hello")
        assert (await heard(connection))["data"] == {"message": "hello"}


async def test_a_message_in_parts_is_one_message() -> None:
    async with served(application(new_hub())) as (port, _), client(port) as connection:
        await heard(connection)
        await connection.send(iter(["one ", "mess", "age"]))

        assert (await heard(connection))["data"] == {"message": "one message"}


async def test_what_is_said_before_the_endpoint_is_reached_is_answered() -> None:
    app = application(new_hub())

    async def after_a_while(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await asyncio.sleep(0.2)
        await app(scope, receive, send)

    async with served(after_a_while) as (port, _), raw_client(port) as raw:
        await asyncio.sleep(0.1)
        await raw.say(Opcode.TEXT, b"early")
        frames = await raw.read_handshake()
        while b"early" not in frames:
            frames += await raw.read()

        assert [orjson.loads(text)["type"] for text in texts_of(frames)] == ["connected", "echo"]


async def test_one_that_stops_reading_is_cut_and_the_others_hear_everything() -> None:
    hub = new_hub(ring_bytes=100_000_000)
    limits = ConnectionLimits(unread_seconds=0.5)
    async with (
        served(application(hub), limits) as (port, _),
        raw_client(port, receive_buffer=4096) as raw,
        client(port) as good,
    ):
        await raw.read_handshake()
        await heard(good)
        await becomes(lambda: hub.statistics().subscribers == 2)
        for batch in batches(1000, "x" * 10_000):
            hub.deliver(batch)
            await heard(good)

        await becomes(lambda: hub.statistics().subscribers == 1)
        assert close_code(await raw.read_to_end()) is None


async def test_one_that_reads_late_is_told_everything_in_order() -> None:
    hub = new_hub(ring_bytes=100_000_000)
    async with (
        served(application(hub)) as (port, _),
        raw_client(port, receive_buffer=4096) as raw,
    ):
        frames = bytearray(await raw.read_handshake())
        await becomes(lambda: hub.statistics().subscribers == 1)
        for batch in batches(2000, "x" * 5_000):
            hub.deliver(batch)
        assert hub.statistics().behind == 1
        while not (b'"id":"2000"' in frames[-10_000:] and frames.endswith(b'Z"}')):
            frames += await raw.read()

        messages = [orjson.loads(text) for text in texts_of(bytes(frames))][1:]
        assert [message["data"]["id"] for message in messages] == [str(n) for n in range(1, 2001)]
        assert hub.statistics().behind == 0


async def test_one_that_does_not_answer_a_ping_is_cut_even_if_it_has_not_read_everything() -> None:
    hub = new_hub(ring_bytes=100_000_000)
    app = application(hub)
    async with (
        served(app, ws_ping_interval=0.3, ws_ping_timeout=0.3) as (port, _),
        raw_client(port, receive_buffer=4096) as raw,
    ):
        await raw.read_handshake()
        await becomes(lambda: hub.statistics().subscribers == 1)
        for batch in batches(1000, "x" * 10_000):
            hub.deliver(batch)

        await becomes(lambda: hub.statistics().subscribers == 0)


async def test_one_that_does_not_answer_a_goodbye_is_cut() -> None:
    hub = new_hub()
    limits = ConnectionLimits(close_seconds=0.3)
    async with (
        served(application(hub), limits) as (port, server),
        raw_client(port) as raw,
    ):
        await raw.read_handshake()
        await raw.say(Opcode.BINARY, b"\x00")

        frames = await raw.read_to_end()
        assert close_code(frames) == 1003
        await becomes(lambda: not server.server_state.connections)


async def test_one_that_says_goodbye_and_reads_nothing_is_cut() -> None:
    hub = new_hub(ring_bytes=100_000_000)
    limits = ConnectionLimits(close_seconds=0.3)
    async with (
        served(application(hub), limits) as (port, server),
        raw_client(port, receive_buffer=4096) as raw,
    ):
        await raw.read_handshake()
        await becomes(lambda: hub.statistics().subscribers == 1)
        for batch in batches(1000, "x" * 10_000):
            hub.deliver(batch)
        await raw.say(Opcode.CLOSE, (1000).to_bytes(2))

        await becomes(lambda: not server.server_state.connections)


async def test_after_a_goodbye_nothing_more_is_said() -> None:
    hub = new_hub(ring_bytes=100_000_000)
    async with (
        served(application(hub)) as (port, server),
        raw_client(port, receive_buffer=4096) as raw,
    ):
        frames = bytearray(await raw.read_handshake())
        await becomes(lambda: hub.statistics().subscribers == 1)
        (connection,) = server.server_state.connections
        more = iter(batches(10_000, "x" * 10_000))
        while not connection.transport.get_write_buffer_size():
            hub.deliver(next(more))
        await raw.say(Opcode.CLOSE, (1000).to_bytes(2))
        await becomes(connection.transport.is_closing)
        hub.deliver(next(more))
        frames += await raw.read_to_end()

        assert close_code(bytes(frames)) == 1000
        assert bytes(frames).endswith(b"\x88\x02\x03\xe8")


@pytest.mark.parametrize(
    ("opcode", "data", "code"),
    [
        (Opcode.BINARY, b"\x00", 1003),
        (Opcode.TEXT, b"\xff\xfe", 1007),
        (Opcode.TEXT, b"x" * 5000, 1009),
        (Opcode.TEXT, b"[" * 50, 4501),
        (Opcode.CONT, b"x", 1002),
    ],
)
async def test_what_cannot_be_taken_ends_the_connection_with_a_code(
    opcode: Opcode, data: bytes, code: int
) -> None:
    app = application(new_hub())
    async with served(app, ws_max_size=4096) as (port, server), raw_client(port) as raw:
        frames = await raw.read_handshake()
        await raw.say(opcode, data)
        while (said := close_code(frames)) is None:
            frames += await raw.read()
        assert said == code
        await raw.say(Opcode.CLOSE, said.to_bytes(2))
        await raw.read_to_end()
        await becomes(lambda: not server.server_state.connections)


@pytest.mark.parametrize("opcode", [Opcode.TEXT, Opcode.PING, Opcode.PONG, Opcode.CONT])
async def test_one_that_says_too_much_is_cut_off(opcode: Opcode) -> None:
    limits = ConnectionLimits(frames_per_second=10, fragments=1000)
    async with served(application(new_hub()), limits) as (port, _), raw_client(port) as raw:
        frames = await raw.read_handshake()
        if opcode is Opcode.CONT:
            await raw.say(Opcode.TEXT, fin=False)
        for _ in range(30):
            await raw.say(opcode, fin=opcode is not Opcode.CONT)
        while (said := close_code(frames)) is None:
            frames += await raw.read()

        assert said == 4029


async def test_one_that_does_not_stop_saying_too_much_is_listened_to_no_longer() -> None:
    limits = ConnectionLimits(frames_per_second=10, close_seconds=1000)
    async with served(application(new_hub()), limits) as (port, server), raw_client(port) as raw:
        await raw.read_handshake()
        with pytest.raises(OSError):
            while True:
                await raw.say(Opcode.PONG, b"x" * 100)
        await becomes(lambda: not server.server_state.connections)


async def test_a_message_in_too_many_parts_ends_the_connection() -> None:
    limits = ConnectionLimits(frames_per_second=1000, fragments=10)
    async with served(application(new_hub()), limits) as (port, _), raw_client(port) as raw:
        frames = await raw.read_handshake()
        await raw.say(Opcode.TEXT, fin=False)
        for _ in range(20):
            await raw.say(Opcode.CONT, fin=False)
        while (said := close_code(frames)) is None:
            frames += await raw.read()

        assert said == 1009


@pytest.mark.parametrize("opcode", [Opcode.TEXT, Opcode.PING])
async def test_one_that_does_not_read_the_answers_is_cut(opcode: Opcode) -> None:
    """What it makes the server say would be kept otherwise, as much as it likes."""
    hub = new_hub()
    limits = ConnectionLimits(frames_per_second=10**9)
    async with (
        served(application(hub), limits) as (port, _),
        raw_client(port, receive_buffer=4096) as raw,
    ):
        await raw.read_handshake()
        data = b"x" * (50_000 if opcode is Opcode.TEXT else 125)
        with pytest.raises(OSError):
            for _ in range(300_000):
                await raw.say(opcode, data)
        await becomes(lambda: hub.statistics().subscribers == 0)


@pytest.mark.parametrize("beginning", [b"", b"GET /ws HTTP/1.1\r\nHost: local"])
async def test_one_that_does_not_say_what_it_wants_is_cut(beginning: bytes) -> None:
    limits = ConnectionLimits(handshake_seconds=0.3)
    async with (
        served(application(new_hub()), limits) as (port, server),
        raw_client(port, None) as raw,
    ):
        await raw.send(beginning)

        assert await raw.read_to_end() == b""
        await becomes(lambda: not server.server_state.connections)


async def test_one_that_dribbles_its_second_request_is_cut_too() -> None:
    limits = ConnectionLimits(handshake_seconds=0.3)
    async with served(application(new_hub()), limits) as (port, _), raw_client(port, None) as raw:
        await raw.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b" 404 " in await raw.read()
        await asyncio.sleep(0.4)  # kept alive, and not cut for the first one
        with pytest.raises(OSError):
            for _ in range(100):
                await raw.send(b"G" if _ == 0 else b"E")
                await asyncio.sleep(0.05)


async def test_a_long_body_is_no_head() -> None:
    async with served(application(new_hub())) as (port, _), asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        size = 3 * MOST_HEAD_BYTES
        head = f"POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n"
        writer.write(head.encode() + b"x" * size)
        assert (await reader.readline()).startswith(b"HTTP/1.1 404 ")
        writer.close()


@pytest.mark.parametrize(
    ("line", "status"),
    [("GET /ws?" + "x" * 9000 + " HTTP/1.1", 414), ("GET /ws HTTP/1.1\r\nX: " + "x" * 9000, 431)],
)
async def test_a_handshake_with_too_long_a_line_is_refused(line: str, status: int) -> None:
    head = (
        f"{line}\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    async with served(application(new_hub())) as (port, server), asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head.encode())
        answer = await reader.read()
        assert answer.startswith(f"HTTP/1.1 {status} ".encode())
        writer.close()
        while server.server_state.connections:
            await asyncio.sleep(0.01)


async def test_a_request_with_an_endless_head_is_cut() -> None:
    async with served(application(new_hub())) as (port, _), raw_client(port, None) as raw:
        with pytest.raises(OSError):
            await raw.send(b"GET /ws HTTP/1.1\r\n")
            for _ in range(MOST_HEAD_BYTES):
                await raw.send(b"X: " + b"y" * 1000 + b"\r\n")


async def test_after_many_have_come_and_gone_nothing_is_left() -> None:
    hub = new_hub()
    doorkeeper = Doorkeeper(DoorLimits(1000, 1000, 1000, 1000))
    before = len(asyncio.all_tasks())
    async with served(application(hub, doorkeeper=doorkeeper)) as (port, server):
        at_rest = len(asyncio.all_tasks())
        for _ in range(20):
            async with AsyncExitStack() as stack:
                for number in range(20):
                    if number % 2:
                        connection = await stack.enter_async_context(client(port))
                        await heard(connection)
                    else:
                        raw = await stack.enter_async_context(raw_client(port))
                        if number % 4:
                            await raw.read_handshake()
                hub.deliver(Batch((), hub.cursor))
        await becomes(lambda: not server.server_state.connections)

        assert hub.statistics()._replace(events=0) == (0, 0, 0, 0, 0)
        assert doorkeeper.count() == 0
        await becomes(lambda: len(asyncio.all_tasks()) == at_rest)
    assert len(asyncio.all_tasks()) == before


@pytest.mark.parametrize(("path", "code"), [("/ws", 1012), ("/?token=ann", 1001)])
async def test_clients_are_told_when_the_server_ends(path: str, code: int) -> None:
    hub = new_hub()
    async with AsyncExitStack() as stack:
        async with served(application(hub)) as (port, _):
            url = f"ws://127.0.0.1:{port}{path}"
            connection = await stack.enter_async_context(connect(url, proxy=None))
            await becomes(lambda: hub.statistics().subscribers == 1)
            if path == "/ws":
                await heard(connection)
        with pytest.raises(ConnectionClosed) as closed:
            await heard(connection)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == code
        assert hub.statistics().subscribers == 0


async def test_an_application_that_fails_ends_the_connection() -> None:
    """The log is where it says why; the client is not left without an answer."""

    async def failing(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("a mistake")

    async with served(failing, lifespan="off") as (port, _), raw_client(port) as raw:
        assert b" 500 " in await raw.read_to_end()


def test_another_uvicorn_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    require_uvicorn()
    monkeypatch.setattr(uvicorn, "__version__", "0.55.0")
    with pytest.raises(WrongUvicorn, match=r"uvicorn 0\.55\.0 is installed.*pip install") as error:
        require_uvicorn()
    assert "\n" not in str(error.value)
