"""Broadcasts over HTTP, and the numbers of subscribers, over two nodes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import jwt
import pytest
from httpx2 import AsyncClient, Response
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.end_to_end.brain import (
    PATIENCE_SECONDS,
    RunningBrain,
    has_sent_everything,
    message,
    running_brain,
)
from tests.postgres import ResettableDatabase

SECRET = "0123456789abcdef0123456789abcdef"


@pytest.fixture(scope="module")
async def other_brain(
    module_database: ResettableDatabase, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RunningBrain]:
    folder = tmp_path_factory.mktemp("other_brain")
    async with running_brain(folder, "--database-url", module_database.url) as brain:
        yield brain


@pytest.fixture
async def nodes(
    shared_brain: RunningBrain, other_brain: RunningBrain, shared_database: str
) -> tuple[RunningBrain, RunningBrain]:
    await has_sent_everything(other_brain, shared_database)
    nodes = shared_brain, other_brain
    for node in nodes:
        # Until the clients of earlier tests have left.
        await counts(node, "/api/ws/stats", total_connections=0)
    return nodes


async def request(brain: RunningBrain, path: str, body: Any = None, **headers: str) -> Response:
    async with AsyncClient(trust_env=False) as client:
        if body is None:
            return await client.get(brain.http + path, headers=headers)
        return await client.post(brain.http + path, json=body, headers=headers)


def channel(brain: RunningBrain, name: str, query: str = "") -> connect:
    return connect(f"ws://localhost:{brain.port}/ws/channel/{name}{query}", proxy=None)


async def counts(brain: RunningBrain, path: str, **expected: Any) -> None:
    """Return once the numbers at `path` are these; other nodes report theirs a moment later."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            found = (await request(brain, path)).json()
            if all(found[name] == value for name, value in expected.items()):
                return
            await asyncio.sleep(0.05)


async def test_a_broadcast_reaches_the_channel_on_every_node(
    nodes: tuple[RunningBrain, RunningBrain],
) -> None:
    one, other = nodes
    async with channel(one, "missions") as near, channel(other, "missions") as far:
        for client in (near, far):
            await message(client)
        await counts(one, "/api/ws/channels/missions", subscribers=2)

        body = {"channel": "missions", "message": {"mission_id": "m"}, "type": "mission_update"}
        answer = await request(one, "/api/ws/broadcast", body)
        assert answer.json() == {
            "status": "broadcasted",
            "channel": "missions",
            "subscribers": 2,
        }
        for client in (near, far):
            received = await message(client)
            assert list(received) == ["type", "channel", "data", "timestamp"]
            assert received["data"] == {"mission_id": "m"}
            assert received["timestamp"] == pytest.approx(time.time(), abs=60)


async def test_a_broadcast_to_all_reaches_every_client_of_channels(
    nodes: tuple[RunningBrain, RunningBrain],
) -> None:
    one, other = nodes
    everyone = [channel(one, "missions"), channel(other, "agents")]
    async with everyone[0] as near, everyone[1] as far, one.client("/ws") as other_kind:
        for client in (near, far):
            await message(client)
        body = {"type": "system_announcement", "data": {"message": "maintenance"}}
        answer = await request(other, "/api/ws/broadcast/all", body)
        assert answer.json()["status"] == "broadcasted"
        for client in (near, far):
            received = await message(client)
            assert list(received) == ["type", "data", "timestamp"]
            assert {name: received[name] for name in body} == body
        await other_kind.send("{}")
        assert (await message(other_kind))["type"] == "echo"


@pytest.mark.parametrize(
    ("fields", "data"),
    [
        ({"message": "hello", "level": 3}, {"message": "hello", "level": 3}),
        ({"channel": "missions", "timestamp": 5}, {"channel": "missions", "timestamp": 5}),
        ({"data": {"a": 1, "b": 2}, "b": 3, "c": 4}, {"a": 1, "b": 2, "c": 4}),
        ({"data": {"a": 1}, "timestamp": 5}, {"a": 1, "timestamp": 5}),
        ({"data": [1], "c": 4}, {"data": [1], "c": 4}),
        ({"data": None, "c": 4}, {"data": None, "c": 4}),
        ({"data": [1]}, [1]),
        ({"data": None}, None),
        ({}, None),
    ],
)
async def test_the_fields_of_a_flat_broadcast_to_all_are_its_data(
    nodes: tuple[RunningBrain, RunningBrain], fields: dict[str, Any], data: Any
) -> None:
    async with channel(nodes[0], "missions") as client:
        await message(client)
        answer = await request(nodes[0], "/api/ws/broadcast/all", {"type": "news", **fields})
        assert answer.status_code == 200
        received = await message(client)
    assert list(received) == ["type", "data", "timestamp"]
    assert (received["type"], received["data"]) == ("news", data)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/ws/broadcast", '{{"channel": "metrics", "type": "t", "message": {{"n": {}}}}}'),
        ("/api/ws/broadcast/all", '{{"type": "t", "data": {{"n": {}}}}}'),
        ("/api/ws/broadcast/all", '{{"type": "t", "n": {}}}'),
    ],
)
@pytest.mark.parametrize(
    "number", ["12345678901234567890.1234567890", "9007199254740993", "1.10", "1" + "0" * 400]
)
async def test_a_number_that_is_broadcast_keeps_its_digits(
    nodes: tuple[RunningBrain, RunningBrain], path: str, body: str, number: str
) -> None:
    brain, _ = nodes
    async with channel(brain, "metrics") as client, AsyncClient(trust_env=False) as http:
        assert (await message(client))["type"] == "connected"
        answer = await http.post(
            brain.http + path,
            content=body.format(number),
            headers={"content-type": "application/json"},
        )
        assert answer.status_code == 200
        text = await client.recv()
        assert f'"data":{{"n": {number}}}' in str(text)


async def test_the_statistics_count_the_clients_of_all_nodes(
    nodes: tuple[RunningBrain, RunningBrain],
) -> None:
    one, other = nodes
    async with (
        channel(one, "missions", "?token=ann") as first,
        channel(other, "missions", "?token=ann") as second,
        channel(other, "agents", "?token=bob"),
        one.client("/ws"),
    ):
        expected = {"missions": 2, "agents": 1, "tasks": 1}
        for brain in nodes:
            await counts(
                brain,
                "/api/ws/stats",
                total_connections=4,
                total_users=2,
                total_channels=3,
                channels=expected,
            )
        ids = [(await message(client))["connection_id"] for client in (first, second)]
        found = (await request(one, "/api/ws/channels/missions")).json()
        assert sorted(found["connection_ids"]) == sorted(ids)
        await second.close()
        await counts(one, "/api/ws/channels/missions", subscribers=1, connection_ids=ids[:1])

        health = await request(one, "/health")
        assert health.status_code == 200
        assert health.json()["websocket"] == {
            "status": "running",
            "connections": 3,
            "connectedUsers": 2,
        }
    await counts(one, "/api/ws/stats", total_connections=0, total_users=0, channels={})


async def test_the_info_lists_the_endpoints(nodes: tuple[RunningBrain, RunningBrain]) -> None:
    found = (await request(nodes[0], "/api/ws/info")).json()
    assert found["channels"] == ["missions", "agents", "system", "tasks", "audit", "metrics"]
    assert found["endpoints"]["connect"] == "/ws/connect"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"channel": "a"}, 422),
        ({"channel": "", "message": {}}, 422),
        ({"channel": "a" * 300, "message": {}}, 422),
        ({"channel": "brain.revocations", "message": {"user": "ann"}}, 401),
        ({"channel": "a", "message": "x" * 300_000}, 413),
        ([], 422),
    ],
)
async def test_an_invalid_broadcast_is_refused_with_a_reason(
    nodes: tuple[RunningBrain, RunningBrain], body: Any, status: int
) -> None:
    answer = await request(nodes[0], "/api/ws/broadcast", body)
    assert (answer.status_code, list(answer.json())) == (status, ["error"])


@pytest.mark.parametrize(
    "body", [{}, {"user": ""}, {"user": "a\0b"}, {"user": "ann", "reason": "\0"}]
)
async def test_an_invalid_revocation_is_refused_with_a_reason(
    nodes: tuple[RunningBrain, RunningBrain], body: Any
) -> None:
    answer = await request(nodes[0], "/api/brain/users/revoke", body)
    assert (answer.status_code, list(answer.json())) == (422, ["error"])


@pytest.mark.parametrize("is_chunked", [False, True])
async def test_a_body_that_is_too_large_is_refused(
    nodes: tuple[RunningBrain, RunningBrain], is_chunked: bool
) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"x" * 100_000

    async with AsyncClient(trust_env=False) as client:
        answer = await client.post(
            f"{nodes[0].http}/api/ws/broadcast",
            content=chunks() if is_chunked else b"x" * 2_000_000,
            headers={"content-type": "application/json"},
        )
    assert (answer.status_code, "Content Too Large" in answer.text) == (413, True)


async def test_a_page_of_another_host_may_not_broadcast(
    nodes: tuple[RunningBrain, RunningBrain],
) -> None:
    body = {"channel": "a", "message": {}}
    answer = await request(nodes[0], "/api/ws/broadcast", body, origin="http://evil.example")
    assert answer.status_code == 403
    async with AsyncClient(trust_env=False) as client:
        headers = {"content-type": "text/plain"}
        answer = await client.post(
            f"{nodes[0].http}/api/ws/broadcast", content='{"channel":"a"}', headers=headers
        )
    assert answer.status_code == 415


def bearer(user: str, **claims: Any) -> dict[str, str]:
    claims = {"sub": user, "iat": time.time() - 1, "exp": time.time() + 60, **claims}
    return {"authorization": f"Bearer {jwt.encode(claims, SECRET)}"}


async def closed_with(client: ClientConnection) -> int:
    async with asyncio.timeout(PATIENCE_SECONDS):
        try:
            while True:
                await client.recv()
        except ConnectionClosed as closed:
            assert closed.rcvd is not None
            return closed.rcvd.code


async def test_with_a_secret_a_token_has_to_allow_the_request(
    tmp_path: Path, database: str
) -> None:
    options = ("--database-url", database)
    async with running_brain(tmp_path, *options, BRAIN_JWT_SECRET=SECRET) as brain:
        message = {"channel": "news", "message": {}}
        to_all = {"type": "a", "data": {}}
        narrow, wide = (
            bearer("ann", publish=["news"], channels=["news"]),
            bearer("bob", publish="*"),
        )
        requests = [
            ("/api/ws/broadcast", message, {}, 401),
            ("/api/ws/broadcast", message, bearer("ann"), 403),
            ("/api/ws/broadcast", message, narrow, 200),
            ("/api/ws/broadcast/all", to_all, narrow, 403),
            ("/api/ws/broadcast/all", to_all, wide, 200),
            ("/api/ws/broadcast", {**message, "channel": "brain.everyone"}, wide, 403),
            ("/api/ws/stats", None, {}, 401),
            ("/api/ws/stats", None, narrow, 200),
            ("/api/ws/channels/news", None, narrow, 200),
            ("/api/ws/channels/tasks", None, narrow, 403),
            ("/api/ws/info", None, {}, 200),
            ("/api/brain/users/revoke", {"user": "eve"}, narrow, 403),
        ]
        for path, body, headers, status in requests:
            assert (await request(brain, path, body, **headers)).status_code == status, (
                path,
                status,
            )


async def test_a_revoked_user_is_disconnected_from_every_node_and_refused(
    tmp_path: Path, database: str, connection: asyncpg.Connection
) -> None:
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        folder.mkdir()
    options = ("--database-url", database)
    settings = {"BRAIN_JWT_SECRET": SECRET, "BRAIN_JWT_LEEWAY_SECONDS": "1"}
    async with (
        running_brain(folders[0], *options, **settings) as one,
        running_brain(folders[1], *options, **settings) as other,
    ):
        ann = bearer("ann")

        def follow(brain: RunningBrain, headers: dict[str, str]) -> connect:
            url = f"ws://localhost:{brain.port}/ws"
            return connect(url, proxy=None, additional_headers=headers)

        async with follow(one, ann) as near, follow(other, ann) as far, follow(one, bearer("bob")):
            rights = bearer("root", publish=["users:revoke"])
            answer = await request(one, "/api/brain/users/revoke", {"user": "ann"}, **rights)
            assert answer.json() == {"status": "revoked", "user": "ann"}
            assert [await closed_with(near), await closed_with(far)] == [4503, 4503]
            assert (await request(other, "/api/brain/tasks", **ann)).status_code == 401
            async with asyncio.timeout(20):
                while True:
                    newer = bearer("ann", iat=time.time())
                    answer = await request(other, "/api/brain/tasks", **newer)
                    if answer.status_code == 200:
                        break

        async with follow(other, newer) as again:
            await connection.execute("SELECT brain.revoke('ann')")
            assert await closed_with(again) == 4503


async def test_an_access_function_in_sql_decides_what_is_readable(
    tmp_path: Path, database: str, connection: asyncpg.Connection
) -> None:
    await connection.execute(
        """
        CREATE FUNCTION brain.may_read(claims jsonb, channel text) RETURNS boolean
        LANGUAGE sql AS $$ SELECT channel = 'of ' || (claims ->> 'sub') $$
        """
    )
    options = ("--database-url", database)
    async with running_brain(tmp_path, *options, BRAIN_JWT_SECRET=SECRET) as brain:
        url = f"ws://localhost:{brain.port}/ws/connect"
        async with connect(url, proxy=None, additional_headers=bearer("ann")) as client:
            await message(client)
            for name, type in (("tasks", "error"), ("of bob", "error"), ("of ann", "subscribed")):
                await client.send(f'{{"type": "subscribe", "channel": "{name}"}}')
                assert (await message(client))["type"] == type
            # A token that has the user in the claim userId is asked about as one with sub.
        claims = {"userId": "ann", "exp": time.time() + 60}
        other = {"authorization": f"Bearer {jwt.encode(claims, SECRET)}"}
        async with connect(url, proxy=None, additional_headers=other) as client:
            await message(client)
            await client.send('{"type": "subscribe", "channel": "of ann"}')
            assert (await message(client))["type"] == "subscribed"
        assert (await request(brain, "/api/brain/tasks", **bearer("ann"))).status_code == 403
