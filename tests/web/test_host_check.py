"""Requests that are addressed to another host: DNS rebinding makes them of a page's own origin."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from httpx2 import AsyncClient

from brain.app import build_app
from brain.settings import Settings
from brain.system import installed_systems
from tests.raw_websocket import connected_to, handshake
from tests.transport.served import served

EVIL = "evil.example:5221"


@pytest.fixture
async def port(database: str) -> AsyncIterator[int]:
    systems = list(installed_systems().values())
    async with served(build_app(database, Settings(), systems)) as (port, _):
        yield port


@pytest.fixture
async def client(port: int) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(trust_env=False, base_url=f"http://127.0.0.1:{port}") as client:
        yield client


async def test_a_page_that_had_its_name_resolve_to_brain_reads_and_writes_nothing(
    client: AsyncClient,
) -> None:
    page = {"host": EVIL, "origin": f"http://{EVIL}"}
    for path in ("/", "/api/brain/tasks", "/api/brain/snapshot/tasks", "/api/ws/stats", "/health"):
        response = await client.get(path, headers=page)
        assert response.status_code == 403, path
        assert "BRAIN_ALLOWED_HOSTS" in response.json()["error"]
    body = {"channel": "news", "message": {}}
    for path in ("/api/ws/broadcast", "/api/brain/users/revoke"):
        assert (await client.post(path, json=body, headers=page)).status_code == 403
    assert (await client.options("/api/brain/tasks", headers=page)).status_code == 403


@pytest.mark.parametrize("path", ["/ws", "/ws/connect", "/ws/workflows", "/", "/healthz"])
async def test_its_websockets_are_refused(port: int, path: str) -> None:
    head = handshake(path, f"Origin: http://{EVIL}").replace(
        b"localhost\r\n", EVIL.encode() + b"\r\n"
    )
    async with connected_to(port) as raw:
        await raw.send(head)
        answer = await raw.receive()
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert b"BRAIN_ALLOWED_HOSTS" in answer


async def test_probes_of_load_balancers_have_any_host_and_are_told_no_texts(
    client: AsyncClient, database: str
) -> None:
    for host in (EVIL, "10.0.0.7:5221"):
        for path in ("/healthz", "/readyz"):
            response = await client.get(path, headers={"host": host, "origin": "http://a.example"})
            assert response.status_code == 200


async def test_the_texts_of_problems_are_for_those_who_address_brain(database: str) -> None:
    app = build_app(database, Settings())
    async with (
        served(app) as (port, _),
        AsyncClient(trust_env=False, base_url=f"http://127.0.0.1:{port}") as client,
    ):
        app.state.services.problems.report("message orders", "secret value")
        assert "secret value" in (await client.get("/readyz")).text
        found = await client.get("/readyz", headers={"host": EVIL})
    assert "secret" not in found.text and "orders" not in found.text
    assert found.json()["problems"][0]["address"] == "message"


async def test_every_response_forbids_to_guess_its_type_and_to_pass_its_address_on(
    client: AsyncClient, port: int
) -> None:
    for path, headers in (
        *((path, {}) for path in ("/", "/healthz", "/api/brain/tasks", "/nothing", "/tasks.js")),
        ("/", {"accept": "text/html"}),
        ("/", {"host": EVIL}),
        ("/ws", {}),
        ("/api/workflows", {"origin": "http://a.example"}),
    ):
        response = await client.get(path, headers=headers)
        assert response.headers["x-content-type-options"] == "nosniff", path
        assert response.headers["referrer-policy"] == "no-referrer"
    async with connected_to(port) as raw:
        await raw.send(handshake("/nothing"))
        assert b"referrer-policy: no-referrer" in await raw.receive()
