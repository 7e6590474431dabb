"""tac-webbuilder's document: its backend, against a running Brain."""

from __future__ import annotations

import json
import re
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import asyncpg
import pytest
from httpx2 import AsyncClient
from websockets.sync.client import ClientConnection, connect

from tests.end_to_end.brain import PATIENCE_SECONDS, message
from tests.end_to_end.following import following, state, state_until
from tests.seeds.clients import client
from tests.seeds.conftest import Served
from tests.seeds.snippets import Document

DOCUMENT = Document("3-tac-webbuilder.md", "localhost:8002")

ROUTE = "INSERT INTO routes (path, method) VALUES ($1, 'GET')"


class Socket:
    """A WebSocket as the printed test uses it."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    def receive_json(self) -> Any:
        return json.loads(self._connection.recv(timeout=PATIENCE_SECONDS))


class TestClient:
    """Replaces FastAPI's: the application is the address of a running Brain."""

    __test__ = False

    def __init__(self, app: str) -> None:
        self._app = app

    @contextmanager
    def websocket_connect(self, path: str) -> Iterator[Socket]:
        with connect(f"ws://{self._app}{path}", proxy=None) as connection:
            yield Socket(connection)


def test_the_backend_test_of_the_document_passes_against_a_running_brain(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in = types.ModuleType("fastapi.testclient")
    vars(stand_in)["TestClient"] = TestClient
    monkeypatch.setitem(sys.modules, "fastapi", types.ModuleType("fastapi"))
    monkeypatch.setitem(sys.modules, "fastapi.testclient", stand_in)
    printed: dict[str, Any] = {"app": served.address}
    exec(compile(DOCUMENT.code("Backend Testing"), "the document", "exec"), printed)

    printed["test_websocket_workflows"]()


async def test_every_connection_is_sent_the_same_until_it_is_closed_or_lost(
    served: Served, sql: asyncpg.Connection
) -> None:
    await sql.execute("DELETE FROM routes")
    async with (
        following(served.brain, "routes") as one,
        following(served.brain, "routes") as two,
        following(served.brain, "routes") as closed,
        following(served.brain, "routes") as lost,
    ):
        for client in (one, two, closed, lost):
            await state_until(client, [])
        await sql.execute(ROUTE, "/api/first")
        texts = {await client.recv() for client in (one, two, closed, lost)}
        assert len(texts) == 1
        assert [route["path"] for route in json.loads(texts.pop())["data"]] == ["/api/first"]

        await closed.close()
        lost.transport.abort()
        await sql.execute("DELETE FROM routes")
        assert await state(one) == await state(two) == []


async def test_the_data_functions_of_the_document_are_queries_whose_result_is_sent(
    served: Served, sql: asyncpg.Connection
) -> None:
    await sql.execute(ROUTE, "/api/workflows")
    names = re.findall(r"get_(\w+)_data_func", DOCUMENT.code("Backend Configuration"))
    assert names == ["workflows", "routes"]
    for name in names:
        query = await sql.fetchval("SELECT query FROM brain.feeds WHERE name = $1", name)
        result = json.loads(await sql.fetchval(query))
        async with following(served.brain, name) as client:
            assert name != "routes" or result != []
            await state_until(client, result)


async def test_a_feed_of_ones_own_is_sent_as_the_printed_endpoint_does(
    served: Served, sql: asyncpg.Connection
) -> None:
    endpoint = DOCUMENT.code("Endpoint Pattern")
    (path,) = re.findall(r'@router\.websocket\("/ws/(\w+)"\)', endpoint)
    (function,) = re.findall(r"initial_data = (\w+)\(\)", endpoint)
    (type,) = re.findall(r'"type": "(\w+)"', endpoint)
    await sql.execute(
        f"""
        CREATE FUNCTION {function}() RETURNS jsonb LANGUAGE sql STABLE
        RETURN (SELECT jsonb_build_object('tasks', count(*)) FROM public.tasks)
        """
    )
    await sql.execute(
        "SELECT brain.define_feed($1, $2, ARRAY['tasks'])", path, f"SELECT {function}()"
    )
    async with following(served.brain, path) as client:
        assert await message(client) == {"type": type, "data": {"tasks": 0}}
        await sql.execute("INSERT INTO tasks DEFAULT VALUES")
        assert await message(client) == {"type": type, "data": {"tasks": 1}}


FEEDS = (
    "workflows",
    "routes",
    "workflow-history",
    "adw-state/adw-7",
    "adw-monitor",
    "queue",
    "system-status",
    "webhook-status",
)


async def test_every_feed_is_served_below_api_v1_too(
    served: Served, sql: asyncpg.Connection
) -> None:
    await sql.execute("INSERT INTO adw_states (adw_id) VALUES ('adw-7') ON CONFLICT DO NOTHING")
    async with AsyncClient(trust_env=False, base_url=f"http://{served.address}") as http:
        for feed in FEEDS:
            async with (
                client(served, f"/ws/{feed}") as plain,
                client(served, f"/api/v1/ws/{feed}") as below,
            ):
                expected = await message(plain)
                found = await message(below)
                assert expected["type"] == f"{feed.partition('/')[0].replace('-', '_')}_update"
                assert without_clock(found) == without_clock(expected)
            below_v1 = await http.get(f"/api/v1/{feed}")
            assert below_v1.status_code == 200
            assert without_clock({"data": below_v1.json()}) == without_clock(
                {"data": expected["data"]}
            )


def without_clock(update: dict[str, Any]) -> dict[str, Any]:
    data = update["data"]
    if isinstance(data, dict):
        data = {key: value for key, value in data.items() if key != "last_updated"}
    return {**update, "data": data}


async def state_with(connection: Any, condition: Callable[[Any], bool]) -> Any:
    """Return the first state for which a condition holds."""
    while not condition(found := await state(connection)):
        pass
    return found


async def test_the_monitor_and_the_queue_pass_details_on(
    served: Served, sql: asyncpg.Connection
) -> None:
    details = {"pr_number": 17, "phase_number": None, "nested": {"a": [1]}, "status": "unseen"}
    text = json.dumps(details)
    await sql.execute("DELETE FROM adw_states; DELETE FROM phase_queue")
    await sql.execute(
        "INSERT INTO adw_states (adw_id, status, details) VALUES ('adw-8', 'running', $1)", text
    )
    await sql.execute(
        "INSERT INTO phase_queue (issue_number, phase, details) VALUES ('8', 'plan', $1)", text
    )
    async with following(served.brain, "adw-monitor") as monitor:
        monitored = await state_with(monitor, lambda state: len(state["workflows"]) == 1)
        (workflow,) = monitored["workflows"]
        assert workflow == {**details, "adw_id": "adw-8", "status": "running"}
        await sql.execute("UPDATE adw_states SET details = '{\"pr_number\": 18}'")
        await state_with(monitor, lambda state: state["workflows"][0].get("pr_number") == 18)
    async with following(served.brain, "queue") as queue:
        phases = await state_with(queue, lambda state: len(state["phases"]) == 1)
        (phase,) = phases["phases"]
        assert phase.items() >= {**details, "issue_number": "8", "status": "queued"}.items()
        await sql.execute("UPDATE phase_queue SET details = '{\"pr_number\": 18}'")
        await state_with(queue, lambda state: state["phases"][0].get("pr_number") == 18)
        await sql.execute("DELETE FROM adw_states; DELETE FROM phase_queue")
