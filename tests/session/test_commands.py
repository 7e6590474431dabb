"""Commands of clients, over the ASGI transport."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import jwt
import pytest
from starlette.testclient import TestClient, WebSocketDenialResponse, WebSocketTestSession
from starlette.websockets import WebSocketDisconnect

from brain.auth.access_function import AccessFunction
from brain.close_codes import CloseCode
from brain.hub.hub import Hub
from brain.message.cursor import Cursor
from brain.message.event import Batch, Event, Operation
from brain.session.registry import SessionRegistry
from brain.settings import Settings
from tests.message.rows import as_json
from tests.transport.served import a_task, application, new_hub

SECRET = "0123456789abcdef0123456789abcdef"


def token(user: str = "ann", seconds: float = 60, **others: Any) -> str:
    return jwt.encode({"sub": user, "exp": int(time.time() + seconds), **others}, SECRET)


def with_secret(**others: Any) -> Settings:
    return Settings.model_validate({"jwt_secret": SECRET, **others})


class RunningApplication:
    """An application with clients, and the hub to which the test delivers."""

    def __init__(self, client: TestClient, hub: Hub, registry: SessionRegistry) -> None:
        self.client = client
        self.hub = hub
        self.registry = registry
        self._tick = 0

    def deliver(self, *events: Event) -> None:
        self._tick += 1
        placed = [
            event.with_values(tick=self._tick, nonce=5, id=number)
            for number, event in enumerate(events, 1)
        ]
        self.call(self.hub.deliver, Batch(tuple(placed), Cursor(self._tick, 5)))

    def call(self, function: Any, *arguments: Any) -> Any:
        assert self.client.portal is not None
        return self.client.portal.call(function, *arguments)

    @contextmanager
    def connected(
        self, path: str = "/ws/connect", **headers: str
    ) -> Iterator[WebSocketTestSession]:
        with self.client.websocket_connect(path, headers=headers) as websocket:
            yield websocket


@contextmanager
def running(settings: Settings | None = None, **changed: Any) -> Iterator[RunningApplication]:
    hub = new_hub()
    served = application(hub, settings=settings or Settings(), **changed)
    with TestClient(served) as client:
        yield RunningApplication(client, hub, served.state.registry)


def send(websocket: WebSocketTestSession, **message: Any) -> Any:
    websocket.send_json(message)
    return websocket.receive_json()


def published(channel: str, **data: Any) -> Event:
    return a_task("x").with_values(
        channel=channel,
        operation=Operation.PUBLISH,
        key=None,
        data=as_json(data),
        type="note",
    )


def test_a_client_gets_a_channel_from_its_subscription_until_it_unsubscribes() -> None:
    with running() as app, app.connected() as client:
        assert client.receive_json()["type"] == "connected"
        app.deliver(published("missions", number=1))

        assert send(client, type="subscribe", channel="missions")["type"] == "subscribed"
        app.deliver(published("missions", number=2), published("agents", number=3))
        assert client.receive_json()["data"] == {"number": 2}

        assert send(client, type="unsubscribe", channel="missions")["type"] == "unsubscribed"
        app.deliver(published("missions", number=4))
        assert send(client, type="ping")["type"] == "pong"


def test_a_client_may_subscribe_to_one_row_or_to_rows_that_match_a_filter() -> None:
    with running() as app, app.connected() as client:
        client.receive_json()
        send(client, type="subscribe", channel="tasks:b")
        send(client, type="subscribe", channel="tasks", where={"status": "failed"})
        queued = a_task("c")
        row = as_json({"id": "c", "status": "failed", "progress": 0})
        failed = queued.with_values(data=row)
        again = queued.with_values(operation=Operation.UPDATE, old=row)
        app.deliver(a_task("a"), a_task("b"), failed, again)

        received = [client.receive_json() for _ in range(3)]
        assert [message["type"] for message in received] == ["task_queued", "task_failed", "left"]
        assert [received[0]["data"]["id"], received[2]["data"]["key"]] == ["b", ["c"]]


def test_confirmations_and_refusals_have_the_cursor_for_clients_that_ask_for_it() -> None:
    with running() as app, app.connected("/ws?token=ann&cursor=") as client:
        for _ in range(2):
            client.receive_json()
        app.deliver(a_task("a"))
        cursor = client.receive_json()["cursor"]
        for message, type in (
            ({"type": "nothing"}, "error"),
            ({"type": "auth", "token": "bob"}, "error"),
            ({"type": "auth", "token": "ann"}, "auth"),
            ({"type": "ping"}, "pong"),
        ):
            answer = send(client, **message)
            assert answer["type"] == type
            assert Cursor.parse(answer["cursor"]) >= Cursor.parse(cursor)
    with running() as app, app.connected("/ws?token=ann") as client:
        client.receive_json()
        assert "cursor" not in send(client, type="nothing")


def test_the_url_may_name_a_row_or_a_filter() -> None:
    with running() as app:
        with app.connected("/ws?channel=tasks:b") as client:
            client.receive_json()
            app.deliver(a_task("a"), a_task("b"))
            assert client.receive_json()["data"]["id"] == "b"
        with app.connected('/ws?where={"status":"queued"}') as client:
            client.receive_json()
            app.deliver(
                a_task("a").with_values(data=as_json({"id": "a", "status": "failed"})), a_task("b")
            )
            assert client.receive_json()["data"]["id"] == "b"


@pytest.mark.parametrize(
    "query",
    [
        *(
            "where=",
            "where=[]",
            "where=%7B",
            'where={"a":[]}',
            'where={"a":1e-9999999999999999999}',
        ),
        "snapshot&channel=tasks:a",
    ],
)
def test_a_url_with_an_invalid_filter_or_snapshot_is_refused(query: str) -> None:
    with running() as app, pytest.raises(WebSocketDisconnect) as refused:
        with app.connected(f"/ws?{query}"):
            pass
    assert getattr(refused.value, "status_code", None) == 400


def test_a_subscription_that_is_not_allowed_is_refused_and_the_connection_lives() -> None:
    with running(with_secret()) as app:
        path = f"/ws/connect?token={token(channels=['missions', 'tasks:a'])}"
        with app.connected(path) as client:
            client.receive_json()
            for channel in ("agents", "tasks", "tasks:b", "brain.revocations", "missionss"):
                assert send(client, type="subscribe", channel=channel)["type"] == "error"
            for channel in ("missions", "missions:1", "tasks:a"):
                assert send(client, type="subscribe", channel=channel)["type"] == "subscribed"
            app.deliver(a_task("b"), published("agents"), a_task("a"))
            assert client.receive_json()["data"]["id"] == "a"


def test_the_number_of_subscriptions_is_limited() -> None:
    with running(Settings(max_subscriptions=2)) as app, app.connected() as client:
        client.receive_json()
        replies = [send(client, type="subscribe", channel=c)["type"] for c in ("a", "b", "c", "a")]
        assert replies == ["subscribed", "subscribed", "error", "subscribed"]
        send(client, type="unsubscribe", channel="b")
        assert send(client, type="subscribe", channel="c")["type"] == "subscribed"


def test_a_url_with_too_many_subscriptions_is_refused() -> None:
    path = "/ws?channel=a&channel=b&channel=b"
    with running(Settings(max_subscriptions=2)) as app:
        with app.connected(path) as client:
            client.receive_json()
        with pytest.raises(WebSocketDenialResponse) as refused:
            with app.connected(f"{path}&channel=c"):
                pass
    assert refused.value.status_code == 400
    assert "more than 2 subscriptions" in refused.value.text


def test_a_client_that_connects_without_a_token_may_authenticate_later() -> None:
    with running(with_secret()) as app, app.connected() as client:
        client.receive_json()
        assert send(client, type="subscribe", channel="missions")["type"] == "error"
        assert send(client, type="auth", token="nonsense")["type"] == "error"
        assert send(client, type="auth", token=token())["type"] == "authenticated"
        assert send(client, type="subscribe", channel="missions")["type"] == "subscribed"
        app.deliver(published("missions").with_values(recipient="bob"))
        app.deliver(published("missions", number=1).with_values(recipient="ann"))
        assert client.receive_json()["data"] == {"number": 1}


def test_a_client_that_authenticates_later_is_counted_as_one_of_its_user() -> None:
    settings = with_secret(max_connections_per_user=1, max_anonymous_connections=1)
    with running(settings) as app, app.connected() as first:
        first.receive_json()
        assert send(first, type="auth", token=token())["type"] == "authenticated"
        with app.connected() as second:
            second.receive_json()
            refusal = send(second, type="auth", token=token())
            assert refusal["type"] == "error"
            assert "too many connections of this user" in str(refusal)
            assert send(second, type="subscribe", channel="missions")["type"] == "error"
            assert send(second, type="auth", token=token("bob"))["type"] == "authenticated"


def test_another_token_of_the_same_user_keeps_the_connection_and_changes_its_rights() -> None:
    with running(with_secret(jwt_leeway_seconds=0)) as app:
        path = f"/ws/channel/tasks?token={token(seconds=2)}"
        with app.connected(path) as client:
            client.receive_json()
            assert send(client, type="auth", token=token("bob"))["type"] == "error"
            narrow = token(seconds=4, channels=["missions"])
            assert send(client, type="auth", token=narrow)["type"] == "authenticated"
            app.deliver(a_task("a"))
            begun = time.monotonic()
            with pytest.raises(WebSocketDisconnect) as closed:
                client.receive_json()
            assert closed.value.code == 4401
            assert time.monotonic() > begun + 1.5


def test_a_client_that_exceeds_the_message_rate_is_warned_and_then_closed() -> None:
    with running(Settings(messages_per_second=10)) as app, app.connected() as client:
        client.receive_json()
        received = []
        with pytest.raises(WebSocketDisconnect) as closed:
            for _ in range(40):
                client.send_json({"type": "pong"})
            while True:
                received.append(client.receive_json()["type"])
        assert (received, closed.value.code) == (["error"], 4029)


@pytest.mark.parametrize("character", ["x", "é"])
def test_a_client_that_exceeds_the_byte_rate_is_warned_and_then_closed(character: str) -> None:
    padding = character * (700 // len(character.encode()))
    with running(Settings(bytes_per_second=1024)) as app, app.connected() as client:
        client.receive_json()
        received = []
        with pytest.raises(WebSocketDisconnect) as closed:
            for _ in range(4):
                client.send_text(f'{{"type": "pong", "padding": "{padding}"}}')
            while True:
                received.append(client.receive_json()["type"])
        assert (received, closed.value.code) == (["error"], 4029)


class SlowAccessFunction(AccessFunction):
    """Returns once the test has set `may_reply`."""

    is_replaced = True

    def __init__(self) -> None:
        super().__init__(timeout_seconds=10)
        self.may_reply = asyncio.Event()

    async def channels(self, claims: Any, channels: Iterable[str]) -> frozenset[str]:
        if channels:
            await self.may_reply.wait()
        return frozenset(channels) & {"missions"}


def test_commands_that_wait_for_a_decision_are_executed_in_order() -> None:
    access_function = SlowAccessFunction()
    settings = with_secret(public_channels="*")
    with (
        running(settings, access_function=access_function) as app,
        app.connected() as client,
    ):
        client.receive_json()
        for message in ("subscribe", "unsubscribe", "ping"):
            client.send_json({"type": message, "channel": "missions"})
        client.send_json({"type": "subscribe", "channel": "agents"})
        app.call(access_function.may_reply.set)

        replies = [client.receive_json()["type"] for _ in range(4)]
        assert replies == ["subscribed", "unsubscribed", "pong", "error"]


def test_a_client_with_too_many_waiting_commands_is_closed() -> None:
    settings = with_secret(messages_per_second=1000)
    with (
        running(settings, access_function=SlowAccessFunction()) as app,
        app.connected() as client,
    ):
        client.receive_json()
        with pytest.raises(WebSocketDisconnect) as closed:
            for _ in range(200):
                client.send_json({"type": "subscribe", "channel": "missions"})
            client.receive_json()
        assert closed.value.code == 4029


def test_a_silent_client_is_closed_only_where_its_format_has_a_client_timeout() -> None:
    with running() as app, app.connected() as timed, app.connected("/ws") as untimed:
        timed.receive_json()
        untimed.receive_json()
        app.call(app.registry.close_silent)
        assert send(timed, type="ping")["type"] == "pong"
        for session in app.registry._open.values():
            session.received_at = -math.inf  # type: ignore[misc]
        app.call(app.registry.close_silent)

        with pytest.raises(WebSocketDisconnect) as closed:
            timed.receive_json()
        assert closed.value.code == CloseCode.CLIENT_TIMEOUT
        assert send(untimed, still="here")["type"] == "echo"


def test_only_sessions_of_a_user_whose_tokens_are_revoked_are_closed() -> None:
    with running(with_secret()) as app:
        with (
            app.connected(f"/ws/connect?token={token()}") as one,
            app.connected(f"/ws?token={token()}") as two,
            app.connected(f"/ws/connect?token={token('bob')}") as other,
        ):
            one.receive_json()
            two.receive_json()
            other.receive_json()
            app.call(app.registry.revoke, "ann")
            for client in (one, two):
                with pytest.raises(WebSocketDisconnect) as closed:
                    client.receive_json()
                assert closed.value.code == CloseCode.TOKENS_REVOKED
            assert send(other, type="ping")["type"] == "pong"


def test_only_users_have_a_presence() -> None:
    with running(with_secret()) as app, app.connected("/ws?token=bad") as client:
        assert client.receive_json()["data"] == {"success": False, "error": "Auth failed"}
        assert send(client, type="user_presence", data="online")["type"] == "error"


@pytest.mark.parametrize(
    "text", ["", "hello", "[]", "null", '{"type": 1}', "{}", '{"type": "subscribe"}', "\ud7ff"]
)
def test_a_malformed_message_is_answered_and_the_connection_lives(text: str) -> None:
    with running() as app:
        for path in ("/ws/connect", "/ws?token=ann"):
            with app.connected(path) as client:
                client.receive_json()
                client.send_text(text)
                assert client.receive_json()["type"] == "error"
                assert send(client, type="ping")["type"] == "pong"


def test_mission_control_clients_need_a_token() -> None:
    with running(with_secret()) as app:
        for path in ("/", "/?token=bad", f"/?token={token(seconds=-60)}"):
            with pytest.raises(WebSocketDisconnect) as refused:
                with app.connected(path):
                    pass
            assert getattr(refused.value, "status_code", None) == 401
        with (
            app.connected(f"/?token={token()}"),
            app.connected("/", authorization=f"Bearer {token()}"),
        ):
            assert app.hub.statistics().subscribers == 2
