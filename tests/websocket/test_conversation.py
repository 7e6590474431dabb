"""A conversation over an ASGI server that is not uvicorn: the plain road."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from brain.database.snapshot import SnapshotReader
from brain.hub.hub import Hub
from brain.message.cursor import Cursor
from brain.message.event import Batch, Event, Operation
from brain.websocket import endpoint
from brain.websocket.conversation import Setting


def a_task(id: str, tick: int = 1) -> Event:
    data = {"id": id, "status": "queued", "progress": 0}
    return Event(
        Cursor(tick, 5, 1),
        datetime.now(UTC),
        "tasks",
        Operation.INSERT,
        [id],
        data,
        None,
        size_bytes=100,
    )


@pytest.fixture
def hub() -> Hub:
    hub = Hub(ring_bytes=10_000)
    hub.deliver(Batch((), Cursor(0, 5)))
    return hub


@pytest.fixture
def client(hub: Hub) -> TestClient:
    return TestClient(
        Starlette(
            routes=endpoint.routes(
                Setting(hub, SnapshotReader(1), 0.05, database_timeout_seconds=1)
            )
        )
    )


def test_a_client_is_greeted_told_and_answered(hub: Hub, client: TestClient) -> None:
    with client, client.websocket_connect("/ws") as websocket:
        assert websocket.receive_json()["type"] == "connected"

        assert client.portal is not None
        client.portal.call(hub.deliver, Batch((a_task("a"),), Cursor(1, 5)))
        assert websocket.receive_json()["data"]["id"] == "a"

        websocket.send_text("hello")
        assert websocket.receive_json()["data"] == {"message": "hello"}


def test_a_binary_message_ends_the_conversation(client: TestClient) -> None:
    with client.websocket_connect("/ws") as websocket:
        websocket.receive_json()
        websocket.send_bytes(b"\x00")

        with pytest.raises(WebSocketDisconnect) as closed:
            websocket.receive_json()
        assert closed.value.code == 1003


def test_a_client_whose_history_is_lost_is_told_to_come_back(hub: Hub, client: TestClient) -> None:
    with client, client.websocket_connect("/ws") as websocket:
        websocket.receive_json()
        assert client.portal is not None
        client.portal.call(hub.deliver, Batch((), Cursor(9, 9), follows=False))

        with pytest.raises(WebSocketDisconnect) as closed:
            websocket.receive_json()
        assert closed.value.code == 4009


def test_whoever_leaves_is_forgotten(hub: Hub, client: TestClient) -> None:
    with client.websocket_connect("/ws") as websocket:
        websocket.receive_json()
        assert hub.statistics().subscribers == 1

    assert hub.statistics().subscribers == 0


class PoolOfASlowLog:
    """Lends a connection over which the log knows every tick; the hub moves on meanwhile."""

    def __init__(self, hub: Hub, meanwhile: Batch) -> None:
        self._hub = hub
        self._meanwhile = meanwhile

    @asynccontextmanager
    async def acquire(self, **_: object) -> AsyncIterator[PoolOfASlowLog]:
        yield self

    async def fetch(self, *_: object, **__: object) -> list[dict[str, bool]]:
        self._hub.deliver(self._meanwhile)
        return [{"holds": True}]


def test_what_reaches_the_hub_while_the_log_is_asked_about_a_cursor_ahead_of_it_is_told(
    hub: Hub,
) -> None:
    """The client knows more than this node, which overtakes it while its cursor is looked up."""
    meanwhile = Batch((a_task("known", tick=2), a_task("new", tick=3)), Cursor(3, 5))

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, object]]:
        yield {"pool": PoolOfASlowLog(hub, meanwhile)}

    routes = endpoint.routes(Setting(hub, SnapshotReader(1), 0.05, database_timeout_seconds=1))
    with TestClient(Starlette(routes=routes, lifespan=lifespan)) as client:
        with client.websocket_connect(f"/ws?cursor={Cursor(2, 5)}") as websocket:
            assert websocket.receive_json()["type"] == "connected"

            assert websocket.receive_json()["data"].get("id") == "new"


class PoolThatCancels:
    """Lends a connection whose last user has left, and that still deals with that."""

    @asynccontextmanager
    async def acquire(self, **_: object) -> AsyncIterator[PoolThatCancels]:
        yield self

    async def fetch(self, *_: object, **__: object) -> list[object]:
        raise asyncio.CancelledError


def test_a_client_whose_telling_is_cancelled_by_nobody_is_told_to_come_back(hub: Hub) -> None:
    """It would stay connected otherwise, and hear nothing any more."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, object]]:
        yield {"pool": PoolThatCancels()}

    routes = endpoint.routes(Setting(hub, SnapshotReader(1), 0.05, database_timeout_seconds=1))
    with TestClient(Starlette(routes=routes, lifespan=lifespan)) as client:
        with client.websocket_connect(f"/ws?cursor={Cursor(2, 5)}") as websocket:
            websocket.receive_json()

            with pytest.raises(WebSocketDisconnect) as closed:
                websocket.receive_json()
    assert closed.value.code == 4010
