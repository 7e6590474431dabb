"""What comes of what clients say, over the plain road."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import jwt
import pytest
from starlette.testclient import TestClient, WebSocketTestSession
from starlette.websockets import WebSocketDisconnect

from brain.auth import authority
from brain.hub.hub import Hub
from brain.message.cursor import Cursor
from brain.message.event import Batch, Event, Operation
from brain.settings import Settings
from brain.websocket.visitors import REVOKED, SILENT, Visitors
from tests.websocket.served import a_task, application, new_hub

SECRET = "0123456789abcdef0123456789abcdef"


def token(user: str = "ann", seconds: float = 60, **others: Any) -> str:
    return jwt.encode({"sub": user, "exp": int(time.time() + seconds), **others}, SECRET)


def locked(**others: Any) -> Settings:
    return Settings.model_validate({"jwt_secret": SECRET, **others})


class Room:
    """A server with clients, whose hub the test feeds."""

    def __init__(self, client: TestClient, hub: Hub, visitors: Visitors) -> None:
        self.client = client
        self.hub = hub
        self.visitors = visitors
        self._tick = 0

    def deliver(self, *events: Event) -> None:
        self._tick += 1
        placed = [
            replace(event, cursor=Cursor(self._tick, 5, number), frames={}, told={})
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
def room(settings: Settings | None = None, **changed: Any) -> Iterator[Room]:
    hub = new_hub()
    app = application(hub, settings=settings or Settings(), **changed)
    with TestClient(app) as client:
        yield Room(client, hub, app.state.visitors)


def says(websocket: WebSocketTestSession, **message: Any) -> Any:
    websocket.send_json(message)
    return websocket.receive_json()


def published(channel: str, **data: Any) -> Event:
    return replace(
        a_task("x"), channel=channel, operation=Operation.PUBLISH, key=None, data=data, type="note"
    )


def test_a_client_hears_a_channel_from_when_it_subscribes_until_it_does_not() -> None:
    with room() as here, here.connected() as client:
        assert client.receive_json()["type"] == "connected"
        here.deliver(published("missions", number=1))

        assert says(client, type="subscribe", channel="missions")["type"] == "subscribed"
        here.deliver(published("missions", number=2), published("agents", number=3))
        assert client.receive_json()["data"] == {"number": 2}

        assert says(client, type="unsubscribe", channel="missions")["type"] == "unsubscribed"
        here.deliver(published("missions", number=4))
        assert says(client, type="ping")["type"] == "pong"


def test_a_client_may_hear_one_row_or_those_that_match() -> None:
    with room() as here, here.connected() as client:
        client.receive_json()
        says(client, type="subscribe", channel="tasks:b")
        says(client, type="subscribe", channel="tasks", where={"status": "failed"})
        failed = replace(a_task("c"), data={"id": "c", "status": "failed", "progress": 0})
        again = replace(a_task("c"), operation=Operation.UPDATE, old={"status": "failed"})
        here.deliver(a_task("a"), a_task("b"), failed, again)

        heard = [client.receive_json() for _ in range(3)]
        assert [message["type"] for message in heard] == ["task_queued", "task_failed", "left"]
        assert [heard[0]["data"]["id"], heard[2]["data"]["key"]] == ["b", ["c"]]


def test_the_address_may_name_a_row_or_a_filter() -> None:
    with room() as here:
        with here.connected("/ws?channel=tasks:b") as client:
            client.receive_json()
            here.deliver(a_task("a"), a_task("b"))
            assert client.receive_json()["data"]["id"] == "b"
        with here.connected('/ws?where={"status":"queued"}') as client:
            client.receive_json()
            here.deliver(replace(a_task("a"), data={"id": "a", "status": "failed"}), a_task("b"))
            assert client.receive_json()["data"]["id"] == "b"


@pytest.mark.parametrize(
    "query", ["where=", "where=[]", "where=%7B", 'where={"a":[]}', "snapshot&channel=tasks:a"]
)
def test_an_address_that_cannot_be_meant_is_refused(query: str) -> None:
    with room() as here, pytest.raises(WebSocketDisconnect) as refused:
        with here.connected(f"/ws?{query}"):
            pass
    assert getattr(refused.value, "status_code", None) == 400


def test_what_may_not_be_heard_is_refused_and_the_connection_lives() -> None:
    with room(locked()) as here:
        path = f"/ws/connect?token={token(channels=['missions', 'tasks:a'])}"
        with here.connected(path) as client:
            client.receive_json()
            for channel in ("agents", "tasks", "tasks:b", "brain.revocations", "missionss"):
                assert says(client, type="subscribe", channel=channel)["type"] == "error"
            for channel in ("missions", "missions:1", "tasks:a"):
                assert says(client, type="subscribe", channel=channel)["type"] == "subscribed"
            here.deliver(a_task("b"), published("agents"), a_task("a"))
            assert client.receive_json()["data"]["id"] == "a"


def test_there_may_be_only_so_many_subscriptions() -> None:
    with room(Settings(subscriptions=2)) as here, here.connected() as client:
        client.receive_json()
        answers = [says(client, type="subscribe", channel=c)["type"] for c in ("a", "b", "c", "a")]
        assert answers == ["subscribed", "subscribed", "error", "subscribed"]
        says(client, type="unsubscribe", channel="b")
        assert says(client, type="subscribe", channel="c")["type"] == "subscribed"


def test_one_that_comes_without_a_token_may_bring_one_later() -> None:
    with room(locked()) as here, here.connected() as client:
        client.receive_json()
        assert says(client, type="subscribe", channel="missions")["type"] == "error"
        assert says(client, type="auth", token="nonsense")["type"] == "error"
        assert says(client, type="auth", token=token())["type"] == "authenticated"
        assert says(client, type="subscribe", channel="missions")["type"] == "subscribed"
        here.deliver(replace(published("missions"), audience="bob"))
        here.deliver(replace(published("missions", number=1), audience="ann"))
        assert client.receive_json()["data"] == {"number": 1}


def test_another_token_of_the_same_user_keeps_the_connection_and_changes_its_rights() -> None:
    with room(locked(jwt_leeway_seconds=0)) as here:
        path = f"/ws/channel/tasks?token={token(seconds=2)}"
        with here.connected(path) as client:
            client.receive_json()
            assert says(client, type="auth", token=token("bob"))["type"] == "error"
            narrow = token(seconds=4, channels=["missions"])
            assert says(client, type="auth", token=narrow)["type"] == "authenticated"
            here.deliver(a_task("a"))
            begun = time.monotonic()
            with pytest.raises(WebSocketDisconnect) as closed:
                client.receive_json()
            assert closed.value.code == 4401
            assert time.monotonic() > begun + 1.5


def test_one_that_says_too_much_is_warned_and_then_sent_away() -> None:
    with room(Settings(messages_per_second=10)) as here, here.connected() as client:
        client.receive_json()
        heard = []
        with pytest.raises(WebSocketDisconnect) as closed:
            for _ in range(40):
                client.send_json({"type": "pong"})
            while True:
                heard.append(client.receive_json()["type"])
        assert (heard, closed.value.code) == (["error"], 4029)


def test_one_that_says_too_many_bytes_is_warned_and_then_sent_away() -> None:
    with room(Settings(bytes_per_second=1024)) as here, here.connected() as client:
        client.receive_json()
        heard = []
        with pytest.raises(WebSocketDisconnect) as closed:
            for _ in range(4):
                client.send_json({"type": "pong", "padding": "x" * 700})
            while True:
                heard.append(client.receive_json()["type"])
        assert (heard, closed.value.code) == (["error"], 4029)


class SlowRules:
    """A rule that answers when it is told to."""

    is_replaced = True

    def __init__(self) -> None:
        self.may_answer = asyncio.Event()

    async def channels(self, claims: Any, channels: frozenset[str]) -> frozenset[str]:
        if channels:
            await self.may_answer.wait()
        return channels & {"missions"}


def test_what_has_to_be_asked_for_is_done_in_turn() -> None:
    rules = SlowRules()
    settings = locked(public_channels="*")
    with (
        room(settings, authority=authority(settings, rules)) as here,
        here.connected() as client,
    ):
        client.receive_json()
        for message in ("subscribe", "unsubscribe", "ping"):
            client.send_json({"type": message, "channel": "missions"})
        client.send_json({"type": "subscribe", "channel": "agents"})
        here.call(rules.may_answer.set)

        answers = [client.receive_json()["type"] for _ in range(4)]
        assert answers == ["subscribed", "unsubscribed", "pong", "error"]


def test_one_that_asks_too_much_at_once_is_sent_away() -> None:
    settings = locked(messages_per_second=1000)
    with (
        room(settings, authority=authority(settings, SlowRules())) as here,
        here.connected() as client,
    ):
        client.receive_json()
        with pytest.raises(WebSocketDisconnect) as closed:
            for _ in range(200):
                client.send_json({"type": "subscribe", "channel": "missions"})
            client.receive_json()
        assert closed.value.code == 4029


def test_one_that_says_nothing_for_too_long_is_sent_away_where_it_has_to_answer() -> None:
    with room() as here, here.connected() as asked, here.connected("/ws") as unasked:
        asked.receive_json()
        unasked.receive_json()
        here.call(here.visitors.dismiss_silent)
        assert says(asked, type="ping")["type"] == "pong"
        for visitor in here.visitors._inside.values():
            visitor.heard_at = -math.inf  # type: ignore[misc]
        here.call(here.visitors.dismiss_silent)

        with pytest.raises(WebSocketDisconnect) as closed:
            asked.receive_json()
        assert closed.value.code == SILENT
        assert says(unasked, still="here")["type"] == "echo"


def test_a_user_whose_tokens_are_revoked_is_sent_away_and_nobody_else() -> None:
    with room(locked()) as here:
        with (
            here.connected(f"/ws/connect?token={token()}") as one,
            here.connected(f"/ws?token={token()}") as two,
            here.connected(f"/ws/connect?token={token('bob')}") as other,
        ):
            one.receive_json()
            two.receive_json()
            two.receive_json()
            other.receive_json()
            here.call(here.visitors.revoke, "ann")
            for client in (one, two):
                with pytest.raises(WebSocketDisconnect) as closed:
                    client.receive_json()
                assert closed.value.code == REVOKED
            assert says(other, type="ping")["type"] == "pong"


def test_only_users_have_a_presence() -> None:
    with room(locked()) as here, here.connected("/ws?token=bad") as client:
        assert client.receive_json()["type"] == "connected"
        assert client.receive_json()["data"] == {"success": False}
        assert says(client, type="user_presence", data="online")["type"] == "error"


@pytest.mark.parametrize(
    "text", ["", "hello", "[]", "null", '{"type": 1}', "{}", '{"type": "subscribe"}', "\ud7ff"]
)
def test_what_is_malformed_is_answered_and_the_connection_lives(text: str) -> None:
    with room() as here:
        for path, greetings in (("/ws/connect", 1), ("/ws?token=ann", 2)):
            with here.connected(path) as client:
                for _ in range(greetings):
                    client.receive_json()
                client.send_text(text)
                assert client.receive_json()["type"] == "error"
                assert says(client, type="ping")["type"] == "pong"


def test_who_watches_agents_needs_a_token() -> None:
    with room(locked()) as here:
        for path in ("/", "/?token=bad", f"/?token={token(seconds=-60)}"):
            with pytest.raises(WebSocketDisconnect) as refused:
                with here.connected(path):
                    pass
            assert getattr(refused.value, "status_code", None) == 401
        with (
            here.connected(f"/?token={token()}"),
            here.connected("/", authorization=f"Bearer {token()}"),
        ):
            assert here.hub.statistics().subscribers == 2
