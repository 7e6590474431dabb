"""The served documents, and that a running Brain answers and sends as they say."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from itertools import product
from typing import Any, NamedTuple

import asyncpg
import pytest
from httpx2 import AsyncClient
from starlette.applications import Starlette
from starlette.testclient import TestClient
from websockets.asyncio.client import connect

from brain.app import build_app
from brain.settings import Settings
from brain.system import installed_systems
from tests.description.documents import Closed, application
from tests.session.test_commands import token, with_secret
from tests.transport.served import served
from tests.web.test_doors import DOORS, TABLES, WHO


class Web(NamedTuple):
    """A served application."""

    app: Starlette
    port: int
    http: AsyncClient

    async def document(self, path: str) -> Closed:
        return Closed((await self.http.get(path)).json())


async def served_web(database: str, settings: Settings) -> AsyncIterator[Web]:
    app = build_app(database, settings, list(installed_systems().values()))
    async with (
        served(app) as (port, _),
        AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http,
    ):
        yield Web(app, port, http)


@pytest.fixture
def client() -> TestClient:
    return TestClient(application(), base_url="http://localhost")


@pytest.fixture
async def guarded(database: str, connection: asyncpg.Connection) -> AsyncIterator[Web]:
    """An application that needs tokens."""
    await connection.execute(TABLES)
    async for web in served_web(database, with_secret()):
        yield web


@pytest.fixture
async def free(database: str, connection: asyncpg.Connection) -> AsyncIterator[Web]:
    """An application that needs none."""
    await connection.execute(TABLES)
    async for web in served_web(database, Settings()):
        yield web


def described(openapi: Closed, name: str, status: int) -> Any:
    """Return how a response is described, by the method and path of its operation."""
    method, _, path = name.partition(" ")
    found = openapi.document["paths"][path][method.lower()]["responses"][str(status)]
    if "$ref" in found:
        return openapi.document["components"]["responses"][found["$ref"].rpartition("/")[2]]
    return found


HTTP_DOORS = [name for name in DOORS if not name.startswith("WS")]


async def test_every_answer_is_as_described(guarded: Web) -> None:
    openapi = await guarded.document("/openapi.json")
    for name, claims in product(HTTP_DOORS, WHO.values()):
        door = DOORS[name]
        operation = f"GET {door.path}" if name == "GET /static/{name}" else name
        headers = {}
        if claims is not None:
            headers["authorization"] = f"Bearer {token('ann', **claims)}"
        async with guarded.http.stream(
            door.method, door.path, headers=headers, json=door.body
        ) as response:
            content = described(openapi, operation, response.status_code)["content"]
            schema = content[response.headers["content-type"].partition(";")[0]]["schema"]
            if "json" in response.headers["content-type"]:
                problems = openapi.problems(schema, json.loads(await response.aread()))
                assert problems == [], name


BROADCAST = "POST /api/ws/broadcast"
JSON = {"content-type": "application/json"}
FAILING: dict[str, tuple[str, int, dict[str, Any]]] = {
    "/api/brain/snapshot/nothing": ("GET /api/brain/snapshot/{channel}", 404, {}),
    "/api/brain/snapshot/orders?numbers=1": ("GET /api/brain/snapshot/{channel}", 400, {}),
    "/api/nothing": ("GET /api/{feed}", 404, {}),
    "/api/ws/broadcast?text": (BROADCAST, 415, {"content": b"{}"}),
    "/api/ws/broadcast?number": (BROADCAST, 422, {"json": 1}),
    "/api/ws/broadcast?long": (BROADCAST, 413, {"content": b" " * 2_000_000, "headers": JSON}),
    "/api/ws/broadcast?large": (BROADCAST, 413, {"content": [b" " * 2_000_000], "headers": JSON}),
}


async def test_every_failure_is_as_described(free: Web) -> None:
    openapi = await free.document("/openapi.json")
    for path, (name, status, options) in FAILING.items():
        if isinstance(options.get("content"), list):
            options = {**options, "content": pieces(options["content"])}

        response = await free.http.request(name.partition(" ")[0], path, **options)

        assert response.status_code == status, path
        content = described(openapi, name, status)["content"]
        media_type = response.headers["content-type"].partition(";")[0]
        found = response.json() if media_type == "application/json" else response.text
        assert openapi.problems(content[media_type]["schema"], found) == [], path


async def pieces(found: list[bytes]) -> AsyncIterator[bytes]:
    """Yield a body whose length is not declared."""
    for piece in found:
        yield piece


async def test_problems_are_as_described_with_tokens_and_without(free: Web, database: str) -> None:
    async for guarded in served_web(database, with_secret()):
        for web in (free, guarded):
            web.app.state.services.problems.report("message orders", "a row", channel="orders")
            openapi = await web.document("/openapi.json")
            found = (await web.http.get("/readyz")).json()
            schema = {"$ref": "#/components/schemas/Readiness"}
            assert found["problems"]
            assert openapi.problems(schema, found) == []


async def test_a_feed_that_is_the_same_is_304_as_described(free: Web) -> None:
    openapi = await free.document("/openapi.json")
    etag = (await free.http.get("/api/count")).headers["etag"]

    response = await free.http.get("/api/count", headers={"if-none-match": etag})

    assert response.status_code == 304
    assert "content" not in described(openapi, "GET /api/{feed}", 304)


class Scene(NamedTuple):
    """What a client does, and the messages that it gets then, at least."""

    path: str
    frames: tuple[Any, ...]
    answers: set[str]
    """The messages that follow when the frames have been received."""
    expected: set[str]


CHANGES = """
    INSERT INTO tasks (id, status) VALUES ('t', 'running');
    UPDATE tasks SET status = 'completed' WHERE id = 't';
    DELETE FROM tasks WHERE id = 't';
    INSERT INTO agents (id, name, status) VALUES ('a', 'ann', 'working');
    UPDATE agents SET current_task = 'reading' WHERE id = 'a';
    INSERT INTO sessions (id, agent_id, last_message) VALUES ('s', 'a', 'hello');
    INSERT INTO messages (conversation_id, sender, content) VALUES ('c', 'ann', 'hello');
    INSERT INTO missions (id, name, status) VALUES ('m', 'Launch', 'started');
    INSERT INTO orders VALUES (3, 'ann', '');
    UPDATE orders SET id = 4 WHERE id = 3;
    SELECT brain.publish('notifications', 'notification', '{"level": "info", "message": "hi"}');
    SELECT brain.publish('agents', 'agent:status', '{"agentId": "b", "status": "online", "x": 1}');
    SELECT brain.broadcast('to-all', '1');
    TRUNCATE tasks;
    SELECT brain.publish('news', 'greeting', '{"text": "hello"}');
"""
# Of every address one more, which is the last.
END = """
    SELECT brain.publish('tasks', 'the-end', '{}');
    UPDATE sessions SET last_message = 'the-end' WHERE id = 's';
    INSERT INTO workflows (id, name, status) VALUES ('1', 'the-end', 'running');
"""
FOR_ALL_OTHERS = {"Message", "ChannelsChannelEvent", "MissionControlPublished"}
"""Of these is also what has a model of its own."""
SCENES = {
    "ws": Scene(
        "/ws?channel=tasks&channel=orders&channel=news&snapshot",
        ("hello",),
        {"Echo", "SnapshotPart"},
        {"Connected", "SnapshotPart", "Echo", "TasksRun", "TasksRunTruncated", "Message"},
    ),
    "wsToken": Scene(
        "/ws?token=test-1&cursor=",
        ({"type": "ping"}, {"type": "user_presence", "data": "away"}, "nonsense"),
        {"CloudAgentsError", "CloudAgentsUserPresence"},
        {
            "Connected",
            "TasksRun",
            *(f"CloudAgents{name}" for name in ("Auth", "Signal", "Error", "AgentStatus")),
            *(f"CloudAgents{name}" for name in ("ChatMessage", "Notification", "UserPresence")),
        },
    ),
    "channelsByName": Scene(
        "/ws/channel/tasks",
        (
            *({"type": "subscribe", "channel": one} for one in ("missions", "agents", "orders")),
            {"type": "unsubscribe", "channel": "orders"},
            {"type": "subscribe", "channel": "orders", "where": {"id": 3}},
            {"type": "ping"},
            "nonsense",
        ),
        {"ChannelsError"},
        {
            *(f"Channels{name}" for name in ("Connected", "Confirmed", "Signal", "Error")),
            *(f"Channels{name}" for name in ("TaskEvent", "MissionEvent", "AgentEvent")),
            *(f"Channels{name}" for name in ("AgentHeartbeat", "ChannelEvent", "BroadcastEvent")),
        },
    ),
    "missionControl": Scene(
        "/?token=test-1",
        ("nonsense",),
        {"MissionControlError"},
        {
            f"MissionControl{name}"
            for name in ("AgentStatusMessage", "SessionActivityMessage", "Published", "Error")
        },
    ),
    "feed": Scene("/ws/workflows", (), {"FeedUpdate"}, {"FeedUpdate"}),
    "feedWorkflows": Scene("/api/v1/ws/workflows", (), {"FeedUpdate"}, {"FeedUpdate"}),
    "v1": Scene(
        "/ws/v1?token=test-1",
        (
            {"type": "subscribe", "id": "a", "channel": "orders"},
            {"type": "subscribe", "id": "b", "channel": "tasks", "snapshot": True},
            {"type": "subscribe", "id": "c", "channel": "orders", "where": {"id": 3}},
            {"type": "subscribe", "id": "e", "channel": "news"},
            {"type": "publish", "id": "f", "channel": "news", "message_type": "m", "data": [1]},
            {"type": "presence", "id": "g", "status": "away"},
            {"type": "ping", "id": "h"},
            "nonsense",
        ),
        {"V1Error", "V1Live"},
        {
            *(f"V1{name}" for name in ("Hello", "Subscribed", "Error", "Published", "Pong")),
            *(f"V1{name}" for name in ("PresenceSet", "SnapshotPage", "SnapshotEnd", "Live")),
            *(f"V1{name}" for name in ("Inserted", "Updated", "Deleted", "TableTruncated")),
            *("V1PublishedMessage",),
        },
    ),
}


@pytest.mark.parametrize("channel", SCENES)
async def test_every_message_is_as_described(
    free: Web, connection: asyncpg.Connection, channel: str
) -> None:
    asyncapi = await free.document("/asyncapi.json")
    path, frames, answers, expected = SCENES[channel]
    seen: set[str] = set()
    async with connect(f"ws://127.0.0.1:{free.port}{path}", proxy=None) as client:

        async def receive() -> str:
            text = str(await client.recv())
            names = asyncapi.sent(channel, json.loads(text))
            assert names, text
            seen.update([name for name in names if name not in FOR_ALL_OTHERS] or names)
            return text

        for frame in frames:
            await client.send(frame if isinstance(frame, str) else json.dumps(frame))
        while not answers <= seen:  # then subscriptions have begun
            await receive()
        await connection.execute(CHANGES)
        await connection.execute(END)
        while "the-end" not in await receive():
            pass
    assert expected - seen == set()


async def test_every_event_of_a_stream_is_as_described(
    free: Web, connection: asyncpg.Connection
) -> None:
    asyncapi = await free.document("/asyncapi.json")
    seen: set[str] = set()
    async with free.http.stream("GET", "/sse?channel=tasks&snapshot") as response:
        async for line in response.aiter_lines():
            if line.startswith("data:"):
                names = asyncapi.sent("events", json.loads(line.removeprefix("data:")))
                assert names, line
                seen.update(names)
                if "V1Live" in names:
                    await connection.execute(CHANGES)
                    await connection.execute(END)
                if "the-end" in line:
                    break
    assert seen >= {
        *(f"V1{name}" for name in ("Hello", "Subscribed", "SnapshotPage", "SnapshotEnd", "Live")),
        *(f"V1{name}" for name in ("Inserted", "Updated", "Deleted", "TableTruncated")),
        "V1PublishedMessage",
    }


def test_the_openapi_document_is_kept_until_it_changes(client: TestClient) -> None:
    first = client.get("/openapi.json")
    etag = first.headers["etag"]
    again = client.get("/openapi.json", headers={"if-none-match": etag})

    assert first.headers["content-type"] == "application/json"
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    assert again.headers["cache-control"] == "no-cache"


def test_the_openapi_document_is_right_behind_a_path(client: TestClient) -> None:
    assert client.get("/openapi.json").json()["servers"] == [{"url": "."}]


@pytest.mark.parametrize(
    ("prefix", "path"),
    [
        ("/brain", {"pathname": "/brain"}),
        ("/a/b/", {"pathname": "/a/b"}),
        ("/", {}),
        ("//example.org", {}),
        ("/{a}", {}),
        ("brain", {}),
    ],
)
def test_the_asyncapi_document_has_the_address_that_a_proxy_forwards(
    client: TestClient, prefix: str, path: dict[str, str]
) -> None:
    plain = client.get("/asyncapi.json")
    found = client.get("/asyncapi.json", headers={"x-forwarded-prefix": prefix})

    servers = {
        "websocket": {"host": "localhost", "protocol": "ws"},
        "http": {"host": "localhost", "protocol": "http"},
    }
    assert plain.json()["servers"] == servers
    assert found.json() == {
        **plain.json(),
        "servers": {name: server | path for name, server in servers.items()},
    }
    assert (found.headers["etag"] != plain.headers["etag"]) == bool(path)
    assert "X-Forwarded-Prefix" in found.headers["vary"]


def test_the_asyncapi_document_of_a_page_with_tls_has_tls() -> None:
    client = TestClient(application(), base_url="https://localhost:8443")
    found = client.get("/asyncapi.json").json()["servers"]["websocket"]

    assert found == {"host": "localhost:8443", "protocol": "wss"}


def test_both_documents_describe_themselves_and_are_linked(client: TestClient) -> None:
    links = client.get("/").json()["links"]

    assert (links["openapi"], links["asyncapi"]) == ("/openapi.json", "/asyncapi.json")
    assert {"/openapi.json", "/asyncapi.json"} <= client.get("/openapi.json").json()["paths"].keys()
