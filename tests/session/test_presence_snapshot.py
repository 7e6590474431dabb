"""Who is present, as rows of a subscription, and the changes after them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
import pytest

from brain.app import build_app
from brain.settings import Settings
from tests.presence.reporting import published
from tests.session.event_stream_client import stream
from tests.session.test_commands import token, with_secret
from tests.session.v1_client import V1Client, v1_client
from tests.transport.served import served

pytestmark = pytest.mark.postgres_versions

PRESENT = "INSERT INTO brain.presence SELECT 'user ' || n, 'online' FROM generate_series(1, $1) n"
CHANGES = """
    SELECT brain.apply_presence(gen_random_uuid(), ARRAY['user ' || $1::int, 'user ' || $2::int],
                                ARRAY['away', 'disconnected'])
"""


@pytest.fixture
async def nodes(database: str) -> AsyncIterator[list[int]]:
    """Two Brains without any system."""
    async with AsyncExitStack() as stack:
        apps = [
            build_app(database, with_secret(presence_grace_seconds=0.0, messages_per_second=1000))
            for _ in range(2)
        ]
        yield [(await stack.enter_async_context(served(app)))[0] for app in apps]


class Users:
    """What a client keeps of the frames of a subscription."""

    def __init__(self) -> None:
        self.statuses: dict[str, str] = {}

    def apply(self, frame: dict[str, Any]) -> str:
        """Apply a frame, and return its kind."""
        kind: str = frame.get("op") or frame["type"]
        if kind == "reset":
            self.statuses.clear()
        for each in frame.get("rows", ()):
            assert each["key"] == [each["row"]["userId"]]
            self._put(each["row"])
        if kind == "message" and frame["type"] == "user_presence":
            self._put(frame["data"])
        return kind

    def _put(self, row: dict[str, str]) -> None:
        self.statuses[row["userId"]] = row["status"]
        if row["status"] == "offline":
            del self.statuses[row["userId"]]

    async def follow(self, client: V1Client, last: str) -> list[str]:
        """Apply frames up to one of a kind."""
        kinds = [self.apply(await client.receive())]
        while kinds[-1] != last:
            kinds.append(self.apply(await client.receive()))
        return kinds


async def state(client: V1Client, status: str) -> None:
    assert (await client.ask("presence", status=status))["type"] == "presence"


async def subscribed(client: V1Client, **options: Any) -> Users:
    await client.subscribe("presence", **{"snapshot": True, **options})
    return Users()


async def has_sent(client: V1Client, users: Users, connection: asyncpg.Connection) -> None:
    """Return once a client has applied what was published so far."""
    await connection.execute("SELECT brain.publish('presence', 'fence', '{}')")
    while users.apply(frame := await client.receive()) != "message" or frame["type"] != "fence":
        pass


@pytest.mark.parametrize("snapshot", [True, "exact"])
async def test_a_client_gets_the_users_of_all_nodes_and_then_their_changes(
    nodes: list[int], connection: asyncpg.Connection, snapshot: bool | str
) -> None:
    ann, ben, cid = (token(name) for name in ("ann", "ben", "cid"))
    async with (
        v1_client(nodes[0], ann) as first,
        v1_client(nodes[1], ben) as second,
        v1_client(nodes[0], cid) as third,
    ):
        for client, status in ((first, "online"), (second, "busy"), (third, "offline")):
            await state(client, status)
        while len(await published(connection)) < 3:
            await asyncio.sleep(0.01)
        users = await subscribed(third, snapshot=snapshot)
        assert (await users.follow(third, "live"))[-2:] == ["snapshot-end", "live"]
        assert users.statuses == {"ann": "online", "ben": "busy"}

        await state(first, "away")
        await users.follow(third, "message")
        assert users.statuses == {"ann": "away", "ben": "busy"}
        await second.websocket.close()
        await users.follow(third, "message")
        assert users.statuses == {"ann": "away"}


async def test_a_client_that_connects_while_presence_changes_has_the_present_state(
    nodes: list[int], connection: asyncpg.Connection
) -> None:
    """Pages of seven users each, and changes between them: none is missing, none is undone."""
    await connection.execute(PRESENT, 60)
    async with v1_client(nodes[0], token("ann")) as client:
        for round in range(5):
            users = await subscribed(client, limit=7)
            following = asyncio.create_task(users.follow(client, "live"))
            for number in range(10):
                n = 10 * round + number + 1
                await connection.execute(CHANGES, n % 60 + 1, (n * 7) % 60 + 1)
                await asyncio.sleep(0)
            await following
            await has_sent(client, users, connection)
            records = await connection.fetch("SELECT user_id, status FROM brain.presence")
            assert users.statuses == {one["user_id"]: one["status"] for one in records}


async def test_a_client_that_resumes_gets_the_changes_that_it_missed_and_no_rows(
    nodes: list[int], connection: asyncpg.Connection
) -> None:
    await connection.execute(PRESENT, 3)
    async with v1_client(nodes[0], token("ann")) as client:
        users = await subscribed(client)
        while (frame := await client.receive())["op"] != "live":
            users.apply(frame)
    await connection.execute(CHANGES, 1, 2)

    async with v1_client(nodes[1], token("ann")) as client:
        await client.subscribe("presence", snapshot=True, after=frame["cursor"])
        assert await users.follow(client, "live") == ["message", "message", "live"]
    assert users.statuses == {"user 1": "away", "user 3": "online"}


async def test_after_a_reset_the_users_come_again(
    nodes: list[int], connection: asyncpg.Connection
) -> None:
    await connection.execute(PRESENT, 3)
    async with v1_client(nodes[0], token("ann")) as client:
        users = await subscribed(client, after="1.1.1")
        kinds = await users.follow(client, "live")
    assert kinds == ["reset", "snapshot", "snapshot-end", "live"]
    assert len(users.statuses) == 3


async def test_a_filter_chooses_users(nodes: list[int], connection: asyncpg.Connection) -> None:
    await connection.execute(PRESENT, 1200)
    async with v1_client(nodes[0], token("ann")) as client:
        users = await subscribed(client, where={"userId": {"in": ["user 1", "user 999"]}}, limit=1)
        await users.follow(client, "live")
        assert users.statuses == {"user 1": "online", "user 999": "online"}
        for number in (2, 1):
            await connection.execute(CHANGES, number, 1200)
        assert await users.follow(client, "message") == ["message"]
        assert users.statuses == {"user 1": "away", "user 999": "online"}


@pytest.mark.parametrize(
    ("asked", "code", "names"),
    [
        ({"where": {"status": "online"}}, "invalid_filter", "status"),
        ({"where": {"or": [{"userId": "a"}, {"status": "b"}]}}, "invalid_filter", "status"),
        ({"key": ["ann"]}, "malformed", "userId"),
    ],
)
async def test_what_a_client_could_not_keep_is_refused_with_a_way_out(
    nodes: list[int], asked: dict[str, Any], code: str, names: str
) -> None:
    async with v1_client(nodes[0], token("ann")) as client:
        refused = await client.ask("subscribe", channel="presence", snapshot=True, **asked)
        assert (refused["type"], refused["code"]) == ("error", code)
        assert names in refused["message"] and "userId" in refused["message"]
        # Of messages alone, every member of the data can be compared.
        if "where" in asked:
            assert (await client.subscribe("presence", **asked))["type"] == "subscribed"


async def test_a_user_who_comes_back_to_another_node_stays_present(
    database: str, connection: asyncpg.Connection
) -> None:
    settings = with_secret(presence_grace_seconds=3600.0)
    async with (
        served(build_app(database, settings)) as (one, _),
        served(build_app(database, settings)) as (other, _),
        v1_client(other, token("ben")) as observer,
    ):
        async with v1_client(one, token("ann")) as client:
            await state(client, "online")
        while await connection.fetchval("SELECT offline_at FROM brain.presence") is None:
            await asyncio.sleep(0.01)
        users = await subscribed(observer)
        await users.follow(observer, "live")
        assert users.statuses == {"ann": "online"}
        async with v1_client(other, token("ann")) as client:
            await state(client, "busy")
            await users.follow(observer, "message")
            assert users.statuses == {"ann": "busy"}
    assert await published(connection) == [("ann", "online"), ("ann", "busy")]


async def test_a_client_without_the_right_gets_no_users(nodes: list[int]) -> None:
    async with v1_client(nodes[0], token("ann", channels=["orders"])) as client:
        refused = await client.ask("subscribe", channel="presence", snapshot=True)
        assert refused["code"] == "not_allowed"


async def test_a_stream_gets_the_users_and_their_changes(
    nodes: list[int], connection: asyncpg.Connection
) -> None:
    await connection.execute(PRESENT, 2)
    headers = {"authorization": f"Bearer {token('ann')}"}
    users = Users()
    async with stream(nodes[1], headers=headers, channel="presence", snapshot="true") as client:
        for frame in await client.until("live"):
            users.apply(frame)
        assert len(users.statuses) == 2
        await connection.execute(CHANGES, 1, 2)
        for frame in await client.frames(2):
            users.apply(frame)
    assert users.statuses == {"user 1": "away"}


async def test_a_table_on_the_channel_precedes_the_users(
    database: str, connection: asyncpg.Connection
) -> None:
    await connection.execute(PRESENT, 3)
    await connection.execute("CREATE TABLE presence (id int PRIMARY KEY)")
    await connection.execute("SELECT brain.watch('presence', 'presence', '{id}')")
    await connection.execute("INSERT INTO presence VALUES (1)")
    async with served(build_app(database, Settings())) as (port, _), v1_client(port) as client:
        await client.subscribe("presence", snapshot=True)
        page = await client.receive()
        while page["op"] != "snapshot":
            page = await client.receive()
        assert json.dumps(page["rows"]) == '[{"key": [1], "row": {"id": 1}}]'
