"""A channel session over the ASGI transport, which serves under any server but uvicorn."""

from __future__ import annotations

import asyncio
import gc
import json
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from urllib.parse import quote
from weakref import ref

import pytest
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.websockets import WebSocketDisconnect

from brain.hub.hub import Hub
from brain.message.base_format import BaseFormat
from brain.message.channel_schema import ChannelSchemas
from brain.message.cursor import Cursor
from brain.message.event import Batch
from brain.message.matching import Topic, parse_filter
from brain.message.subscription_set import SETS
from brain.message.wire_format import Welcome
from brain.session.connection_limiter import ConnectionLimiter, ConnectionQuotas
from brain.settings import Settings
from brain.system import System
from brain.web.websocket_endpoint import Profile
from tests.transport.served import a_task, application, new_hub

PATIENCE_SECONDS = 10.0


@pytest.fixture
def hub() -> Hub:
    return new_hub()


@pytest.fixture
def client(hub: Hub) -> TestClient:
    return TestClient(application(hub))


def test_a_client_gets_a_greeting_events_and_replies(hub: Hub, client: TestClient) -> None:
    with client, client.websocket_connect("/ws") as websocket:
        assert websocket.receive_json()["type"] == "connected"

        assert client.portal is not None
        client.portal.call(hub.deliver, Batch((a_task("a"), a_task("b", 1, 2)), Cursor(1, 5)))
        assert websocket.receive_json()["data"]["id"] == "a"
        assert websocket.receive_json()["data"]["id"] == "b"

        websocket.send_text("hello")
        assert websocket.receive_json()["data"] == {"message": "hello"}


@pytest.mark.parametrize("size", [10, 125, 126, 65535, 65536, 100_000])
def test_a_message_of_any_length_arrives_whole(hub: Hub, size: int) -> None:
    client = TestClient(application(hub, settings=Settings(max_message_bytes=1_000_000)))
    with client, client.websocket_connect("/ws") as websocket:
        websocket.receive_json()
        websocket.send_text("é" * size)

        assert websocket.receive_json()["data"] == {"message": "é" * size}


@pytest.mark.parametrize("character", ["x", "é"])
def test_a_message_that_is_too_long_closes_the_connection(hub: Hub, character: str) -> None:
    most = 1000 // len(character.encode())
    client = TestClient(application(hub, settings=Settings(max_message_bytes=1000)))
    with client, client.websocket_connect("/ws") as websocket:
        websocket.receive_json()
        websocket.send_text(character * most)
        assert websocket.receive_json()["type"] == "echo"

        websocket.send_text(character * (most + 1))
        with pytest.raises(WebSocketDisconnect) as closed:
            websocket.receive_json()
        assert closed.value.code == 1009


def test_a_binary_message_closes_the_connection(client: TestClient) -> None:
    with client, client.websocket_connect("/ws") as websocket:
        websocket.receive_json()
        websocket.send_bytes(b"\x00")

        with pytest.raises(WebSocketDisconnect) as closed:
            websocket.receive_json()
        assert closed.value.code == 1003


def test_a_message_that_is_nested_too_deeply_closes_the_connection(client: TestClient) -> None:
    with client, client.websocket_connect("/ws") as websocket:
        websocket.receive_json()
        websocket.send_text('{"a":' * 10 + "1" + "}" * 10)
        assert websocket.receive_json()["type"] == "echo"

        websocket.send_text('{"a":' * 11 + "1" + "}" * 11)
        with pytest.raises(WebSocketDisconnect) as closed:
            websocket.receive_json()
        assert closed.value.code == 4501


def test_a_client_whose_history_is_lost_is_closed_with_4009(hub: Hub, client: TestClient) -> None:
    with client, client.websocket_connect("/ws") as websocket:
        websocket.receive_json()
        assert client.portal is not None
        client.portal.call(hub.deliver, Batch((), Cursor(9, 9), follows=False))

        with pytest.raises(WebSocketDisconnect) as closed:
            websocket.receive_json()
        assert closed.value.code == 4009


def test_a_client_with_a_cursor_is_reset_instead_and_goes_on(hub: Hub, client: TestClient) -> None:
    with client, client.websocket_connect("/ws?cursor=") as websocket:
        websocket.receive_json()
        assert client.portal is not None
        client.portal.call(hub.deliver, Batch((), Cursor(9, 9), follows=False))
        reset = websocket.receive_json()
        assert (reset["type"], reset["cursor"]) == ("reset", str(Cursor(9, 9)))

        client.portal.call(hub.deliver, Batch((a_task("a", 10),), Cursor(10, 9)))
        assert websocket.receive_json()["data"]["id"] == "a"


def test_a_client_that_connects_before_the_database_is_followed_is_closed_with_1013() -> None:
    client = TestClient(application(Hub(1000, ring_seconds=60)))
    with client, client.websocket_connect("/ws") as websocket:
        with pytest.raises(WebSocketDisconnect) as closed:
            websocket.receive_json()
    assert closed.value.code == 1013


def test_a_session_that_has_ended_leaves_nothing_behind(hub: Hub) -> None:
    limiter = ConnectionLimiter(ConnectionQuotas(10, 10, 10, 10))
    client = TestClient(application(hub, limiter=limiter))
    with client:
        with client.websocket_connect("/ws") as websocket:
            websocket.receive_json()
            assert (hub.statistics().subscribers, limiter.count()) == (1, 1)

        assert (hub.statistics().subscribers, limiter.count()) == (0, 0)


class FormatThatFails(BaseFormat):
    name = "fails"

    def greet(self, welcome: Welcome) -> Iterator[str]:
        raise RuntimeError("no greeting")


class SystemThatFails(System):
    """Serves `/ws` with a format that cannot greet."""

    name = "fails"

    def profiles(self, schemas: ChannelSchemas) -> Sequence[Profile]:
        return [Profile(FormatThatFails(schemas))]


def test_a_session_that_fails_to_begin_leaves_nothing_behind(hub: Hub) -> None:
    limiter = ConnectionLimiter(ConnectionQuotas(10, 10, 10, 10))
    app = application(hub, limiter=limiter, systems=[SystemThatFails()])
    with TestClient(app) as client:
        with pytest.raises(RuntimeError, match="no greeting"):
            with client.websocket_connect("/ws"):
                pass

    clients = app.state.registry.presence.counts().clients
    assert (hub.statistics().subscribers, limiter.count(), clients) == (0, 0, 0)


def test_equal_subscriptions_are_one_object_which_goes_with_the_last_client(
    client: TestClient,
) -> None:
    topics = frozenset({Topic("tasks", where=parse_filter({"agent": "a" * 1000}))})
    url = f"/ws?where={quote(json.dumps({'agent': 'a' * 1000}))}"
    with client:
        with client.websocket_connect(url) as one:
            one.receive_json()
            first = ref(SETS[topics])
            with client.websocket_connect(url) as other:
                other.receive_json()
                assert SETS[topics] is first()
            gc.collect()
            assert SETS[topics] is first()
        # The server may still be closing the connection.
        deadline = time.monotonic() + PATIENCE_SECONDS
        while topics in SETS and time.monotonic() < deadline:
            gc.collect()
            time.sleep(0.01)
        assert topics not in SETS
        assert first() is None


def test_a_connection_above_the_quota_is_refused_before_the_handshake(hub: Hub) -> None:
    limiter = ConnectionLimiter(
        ConnectionQuotas(in_all=1, per_address=10, per_user=10, anonymous=10)
    )
    client = TestClient(application(hub, limiter=limiter))
    with client:
        with client.websocket_connect("/ws"):
            with pytest.raises(WebSocketDenialResponse) as refused:
                with client.websocket_connect("/ws"):
                    pass
            assert refused.value.status_code == 503
            assert refused.value.headers["retry-after"] == "5"
            assert "the connection limit is reached" in refused.value.text
        with client.websocket_connect("/ws") as websocket:
            assert websocket.receive_json()["type"] == "connected"


class PoolOfASlowLog:
    """Lends a connection that knows every tick; meanwhile the hub receives a batch."""

    def __init__(self, hub: Hub, meanwhile: Batch) -> None:
        self._hub = hub
        self._meanwhile = meanwhile

    @asynccontextmanager
    async def acquire(self, **_: object) -> AsyncIterator[PoolOfASlowLog]:
        yield self

    async def fetch(self, *_: object, **__: object) -> list[dict[str, bool]]:
        self._hub.deliver(self._meanwhile)
        return [{"holds": True}]


def test_events_that_reach_the_hub_while_a_cursor_ahead_of_it_is_looked_up_are_sent(
    hub: Hub,
) -> None:
    """The client is ahead of this node, which overtakes it while its cursor is looked up."""
    meanwhile = Batch((a_task("known", tick=2), a_task("new", tick=3)), Cursor(3, 5))
    with TestClient(application(hub, PoolOfASlowLog(hub, meanwhile))) as client:
        with client.websocket_connect(f"/ws?cursor={Cursor(2, 5)}") as websocket:
            assert websocket.receive_json()["type"] == "connected"

            assert websocket.receive_json()["data"].get("id") == "new"


class PoolThatCancels:
    """Lends a connection on which every query raises `CancelledError`."""

    @asynccontextmanager
    async def acquire(self, **_: object) -> AsyncIterator[PoolThatCancels]:
        yield self

    async def fetch(self, *_: object, **__: object) -> list[object]:
        raise asyncio.CancelledError


def test_a_client_whose_catch_up_is_cancelled_from_elsewhere_is_closed_with_4010(hub: Hub) -> None:
    """Otherwise it would stay connected and receive nothing."""
    with TestClient(application(hub, PoolThatCancels())) as client:
        with client.websocket_connect(f"/ws?cursor={Cursor(2, 5)}") as websocket:
            websocket.receive_json()

            with pytest.raises(WebSocketDisconnect) as closed:
                websocket.receive_json()
    assert closed.value.code == 4010
