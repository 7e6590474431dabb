"""A conversation over an ASGI server that is not uvicorn: the plain road."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from brain.hub.hub import Hub
from brain.message.cursor import Cursor
from brain.message.event import Batch, Event, Operation
from brain.websocket import endpoint
from brain.websocket.conversation import Setting


def a_task(id: str) -> Event:
    data = {"id": id, "status": "queued", "progress": 0}
    return Event(
        Cursor(1, 5, 1),
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
        Starlette(routes=endpoint.routes(Setting(hub, 0.05, database_timeout_seconds=1)))
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
