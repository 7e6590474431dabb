"""Every address of Brain, and the right that it needs: the table in docs/security.md."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import pytest
from httpx2 import AsyncClient
from starlette.applications import Starlette
from starlette.routing import Route, WebSocketRoute
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from brain.app import build_app
from brain.system import installed_systems
from tests.session.test_commands import token, with_secret
from tests.transport.served import served

SECURITY = (Path(__file__).parents[2] / "docs" / "security.md").read_text()
# The channel `orders` has row rules.
TABLES = """
    CREATE TABLE orders (id int PRIMARY KEY, owner text, secret text);
    SELECT brain.watch('orders', 'orders', '{id}', rules => '{"owner": "sub"}');
    INSERT INTO orders VALUES (1, 'ann', 'for nobody'), (2, 'ben', 'for nobody');
    INSERT INTO tasks (id, title) VALUES ('1', 'a task');
    SELECT brain.define_feed('count', 'SELECT to_jsonb(count(*)) FROM orders', '{news}');
    SELECT brain.define_feed('mine', 'SELECT to_jsonb(count(*)) FROM orders WHERE owner = $1',
                             '{orders}', takes_argument => true, argument_claim => 'team');
"""
# Anonymous; a token for another channel; one that may read; one that may do everything.
WHO: dict[str, dict[str, Any] | None] = {
    "anonymous": None,
    "other": {"channels": ["other"]},
    "reader": {"channels": ["orders", "tasks", "news", "count", "mine"], "team": "ann"},
    "all": {"channels": ["*"], "publish": "*", "team": "ann"},
}


class Door(NamedTuple):
    """A request, and the status that each gets."""

    method: str
    path: str
    statuses: tuple[int, int, int, int]
    body: Any = None


NEEDS_READING = (401, 403, 200, 200)
NEEDS_PUBLISHING = (401, 403, 403, 200)
FOR_ALL = (200, 200, 200, 200)
DOORS = {
    "GET /api/{feed}": Door("GET", "/api/count", NEEDS_READING),
    "GET /api/{feed}/{argument}": Door("GET", "/api/adw-state/1", (401, 403, 403, 200)),
    "GET /api/brain/snapshot/{channel}": Door("GET", "/api/brain/snapshot/orders", NEEDS_READING),
    "GET /api/brain/tasks": Door("GET", "/api/brain/tasks", NEEDS_READING),
    "POST /api/ws/broadcast": Door(
        "POST", "/api/ws/broadcast", NEEDS_PUBLISHING, {"channel": "news", "message": 1}
    ),
    "POST /api/ws/broadcast/all": Door(
        "POST", "/api/ws/broadcast/all", NEEDS_PUBLISHING, {"type": "alarm", "data": 1}
    ),
    "GET /api/ws/channels/{channel}": Door("GET", "/api/ws/channels/orders", NEEDS_READING),
    "GET /api/ws/stats": Door("GET", "/api/ws/stats", (401, 200, 200, 200)),
    "POST /api/brain/users/revoke": Door(
        "POST", "/api/brain/users/revoke", NEEDS_PUBLISHING, {"user": "nobody"}
    ),
    "POST /api/brain/publish": Door(
        "POST", "/api/brain/publish", NEEDS_PUBLISHING, {"channel": "news", "type": "alarm"}
    ),
    "GET /sse": Door("GET", "/sse?channel=orders", NEEDS_READING),
    "POST /api/brain/ticket": Door("POST", "/api/brain/ticket", (401, 200, 200, 200)),
    "GET /api/ws/info": Door("GET", "/api/ws/info", FOR_ALL),
    "GET /api/brain/status/ws": Door("GET", "/api/brain/status/ws", FOR_ALL),
    "GET /healthz": Door("GET", "/healthz", FOR_ALL),
    "GET /readyz": Door("GET", "/readyz", FOR_ALL),
    "GET /health": Door("GET", "/health", FOR_ALL),
    "GET /openapi.json": Door("GET", "/openapi.json", FOR_ALL),
    "GET /asyncapi.json": Door("GET", "/asyncapi.json", FOR_ALL),
    "GET /client/brain.js": Door("GET", "/client/brain.js", FOR_ALL),
    "GET /client/tabs.js": Door("GET", "/client/tabs.js", FOR_ALL),
    "GET /": Door("GET", "/", FOR_ALL),
    "GET /tasks.js": Door("GET", "/tasks.js", FOR_ALL),
    "GET /static/{name}": Door("GET", "/static/websocket_test.html", FOR_ALL),
    "GET /api/v1/{feed}": Door("GET", "/api/v1/count", NEEDS_READING),
    "GET /api/v1/{feed}/{argument}": Door("GET", "/api/v1/adw-state/1", (401, 403, 403, 200)),
    "WS /api/v1/ws/{feed}": Door("WS", "/api/v1/ws/mine", (403, 403, 101, 101)),
    "WS /api/v1/ws/{feed}/{argument}": Door("WS", "/api/v1/ws/adw-state/1", (403, 403, 403, 101)),
    "WS /ws": Door("WS", "/ws?channel=orders", (101, 101, 101, 101)),
    "WS /ws/v1": Door("WS", "/ws/v1", (101, 101, 101, 101)),
    "WS /ws/connect": Door("WS", "/ws/connect", (101, 101, 101, 101)),
    "WS /ws/channel/{name}": Door("WS", "/ws/channel/orders", (101, 101, 101, 101)),
    "WS /": Door("WS", "/", (401, 101, 101, 101)),
    "WS /ws/{feed}": Door("WS", "/ws/mine", (403, 403, 101, 101)),
    "WS /ws/{feed}/{argument}": Door("WS", "/ws/adw-state/1", (403, 403, 403, 101)),
}


def doors_of(app: Starlette) -> set[str]:
    """Return the doors of an application, as the document names them."""
    doors = set()
    for route in app.routes:
        if isinstance(route, WebSocketRoute):
            doors.add(f"WS {route.path}")
        elif isinstance(route, Route):
            methods = (route.methods or set()) - {"HEAD"}
            doors |= {f"{method} {route.path}" for method in methods}
    return doors


def documented_doors() -> set[str]:
    table = SECURITY.partition("## The doors")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    return {door for row in rows for door in re.findall("`([^`]+)`", row)}


@pytest.fixture
async def port(database: str, connection: asyncpg.Connection) -> AsyncIterator[int]:
    await connection.execute(TABLES)
    app = build_app(database, with_secret(), list(installed_systems().values()))
    async with served(app) as (port, _):
        yield port


def test_every_door_is_documented(database: str) -> None:
    found = doors_of(build_app(database, with_secret(), list(installed_systems().values())))
    pages = {one for one in found if one.startswith("GET /static/")}
    # Upgrades alone: a request without one is answered by 426.
    plain = {one for one in found if one.startswith(("GET /ws", "GET /api/v1/ws"))}

    assert documented_doors() == found - pages - plain | {"GET /static/{name}"}


def test_every_door_is_walked() -> None:
    assert DOORS.keys() == documented_doors()


async def test_every_door_opens_to_those_who_have_the_right(port: int) -> None:
    found: dict[str, list[int]] = {}
    async with AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        for name, door in DOORS.items():
            found[name] = [await status_for(http, port, door, claims) for claims in WHO.values()]

    assert found == {name: list(door.statuses) for name, door in DOORS.items()}


async def status_for(
    http: AsyncClient, port: int, door: Door, claims: dict[str, Any] | None
) -> int:
    headers = {}
    if claims is not None:
        headers["authorization"] = f"Bearer {token('ann', **claims)}"
    if door.method == "WS":
        return await handshake(port, door.path, headers)
    async with http.stream(door.method, door.path, headers=headers, json=door.body) as response:
        if not response.headers["content-type"].startswith("text/event-stream"):
            assert b"for nobody" not in await response.aread()
        return response.status_code


async def handshake(port: int, path: str, headers: dict[str, str]) -> int:
    try:
        async with connect(f"ws://127.0.0.1:{port}{path}", proxy=None, additional_headers=headers):
            return 101
    except InvalidStatus as error:
        return error.response.status_code


async def test_a_message_for_all_reaches_no_anonymous_client(
    port: int, connection: asyncpg.Connection
) -> None:
    url = f"ws://127.0.0.1:{port}/ws/connect"
    ann = {"authorization": f"Bearer {token('ann', channels=[])}"}
    async with (
        connect(url, proxy=None) as anonymous,
        connect(url, proxy=None, additional_headers=ann) as known,
    ):
        for client in (anonymous, known):
            await client.recv()
        await connection.execute("""SELECT brain.broadcast('alarm', '"secret"')""")
        assert json.loads(await known.recv())["data"] == "secret"
        await anonymous.send(json.dumps({"type": "auth", "token": token("ben", channels=[])}))
        assert json.loads(await anonymous.recv())["type"] == "authenticated"
        await connection.execute("SELECT brain.broadcast('again', '1')")
        assert json.loads(await anonymous.recv())["type"] == "again"


async def test_the_names_of_channels_are_counted_for_those_who_may_read_them(port: int) -> None:
    everything = {"authorization": f"Bearer {token('ann', channels=['*'])}"}
    url = f"ws://127.0.0.1:{port}/ws?channel=secret&channel=news"
    async with (
        connect(url, proxy=None, additional_headers=everything) as client,
        AsyncClient(base_url=f"http://127.0.0.1:{port}") as http,
    ):
        await client.recv()
        for claims, names in ((["news"], {"news"}), ([], set()), (["*"], {"news", "secret"})):
            headers = {"authorization": f"Bearer {token('ben', channels=claims)}"}
            found = (await http.get("/api/ws/stats", headers=headers)).json()
            assert found["channels"].keys() == names
            assert found["total_channels"] == len(names)


async def test_where_tokens_are_needed_the_health_names_no_database(port: int) -> None:
    async with AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        found = await http.get("/health")
    assert found.json()["config"]["gatewayUrl"] == "postgresql:"
