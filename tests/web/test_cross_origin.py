"""Pages of other origins: what they may read over HTTP, and what the log says of the others."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

import pytest
from httpx2 import AsyncClient
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from brain.app import create_app
from brain.auth.origin import Origins
from brain.log_limit import MOST_KINDS
from brain.settings import Settings
from brain.system import installed_systems
from tests.raw_websocket import connected_to, handshake
from tests.transport.served import served

ALLOWED = "http://localhost:5173"
PATHS = (
    "/api/brain/tasks",
    "/client/brain.js",
    "/api/workflows",
    "/api/v1/workflows",
    "/healthz",
    "/api/nothing",
)


@pytest.fixture
async def port(database: str) -> AsyncIterator[int]:
    """The port of a Brain that a page may use that comes from another port."""
    settings = Settings.model_validate({"allowed_origins": ALLOWED})
    systems = list(installed_systems().values())
    async with served(create_app(database, settings, systems)) as (port, _):
        yield port


@pytest.fixture
async def client(port: int) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(trust_env=False, base_url=f"http://127.0.0.1:{port}") as client:
        yield client


async def test_a_page_of_an_allowed_origin_may_read_every_response(client: AsyncClient) -> None:
    for path in PATHS:
        response = await client.get(path, headers={"origin": ALLOWED})
        assert response.status_code == (404 if path == "/api/nothing" else 200)
        assert response.headers["access-control-allow-origin"] == ALLOWED
        assert "Origin" in response.headers["vary"]


async def test_a_preflight_of_an_allowed_origin_is_answered(client: AsyncClient) -> None:
    for method in ("GET", "POST"):
        asked = {
            "origin": ALLOWED,
            "access-control-request-method": method,
            "access-control-request-headers": "authorization, content-type, if-none-match",
        }
        for path in (*PATHS, "/api/ws/broadcast"):
            response = await client.options(path, headers=asked)
            assert response.status_code == 200
            assert response.headers["access-control-allow-origin"] == ALLOWED
            assert method in response.headers["access-control-allow-methods"]
            assert "authorization" in response.headers["access-control-allow-headers"].lower()


async def test_a_page_of_an_allowed_origin_may_publish(client: AsyncClient) -> None:
    body = {"channel": "news", "message": {}}
    response = await client.post("/api/ws/broadcast", json=body, headers={"origin": ALLOWED})
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == ALLOWED


async def test_a_page_of_any_other_origin_may_not(client: AsyncClient) -> None:
    foreign = {"origin": "http://localhost:5174"}
    for path in ("/api/brain/tasks", "/api/ws/stats", "/api/nothing"):
        response = await client.get(path, headers=foreign)
        assert response.status_code == 403
        assert "BRAIN_ALLOWED_ORIGINS" in response.json()["error"]
        assert "access-control-allow-origin" not in response.headers
    asked = {**foreign, "access-control-request-method": "GET"}
    response = await client.options("/api/brain/tasks", headers=asked)
    assert (response.status_code, "access-control-allow-origin" in response.headers) == (400, False)
    assert "BRAIN_ALLOWED_ORIGINS" in response.text
    body = {"channel": "news", "message": {}}
    response = await client.post("/api/ws/broadcast", json=body, headers=foreign)
    assert response.status_code == 403


def refusals(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        one.getMessage()
        for one in caplog.records
        if one.getMessage().startswith("Origin refused: set BRAIN_ALLOWED_ORIGINS")
    ]


async def test_a_refused_origin_is_logged_once_a_minute_whatever_it_asks_for(
    port: int, client: AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    foreign = "http://localhost:5174"
    for _ in range(3):
        with pytest.raises(InvalidStatus) as refused:
            await connect(
                f"ws://127.0.0.1:{port}/ws", proxy=None, additional_headers={"origin": foreign}
            )
        assert refused.value.response.status_code == 403
        await client.get("/api/brain/tasks", headers={"origin": foreign})
    (line,) = refusals(caplog)
    assert f"{foreign!r}" in line and f"'127.0.0.1:{port}'" in line

    await client.get("/api/brain/tasks", headers={"origin": "https://other.example"})
    assert len(refusals(caplog)) == 2


async def test_pages_of_this_host_and_allowed_ones_are_not_logged(
    port: int, client: AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    for given in (ALLOWED, f"http://127.0.0.1:{port}", f"https://127.0.0.1:{port}"):
        async with connect(
            f"ws://127.0.0.1:{port}/ws", proxy=None, additional_headers={"origin": given}
        ):
            pass
        await client.post(
            "/api/ws/broadcast", json={"channel": "a", "message": 1}, headers={"origin": given}
        )
    assert refusals(caplog) == []


async def test_a_page_behind_a_proxy_that_passes_no_host_on_is_refused_with_a_reason_in_the_log(
    database: str, caplog: pytest.LogCaptureFixture
) -> None:
    head = handshake("/ws", "Origin: https://app.example").replace(b"Host: localhost\r\n", b"")
    assert b"host:" not in head.lower()
    settings = Settings.model_validate({"allowed_hosts": "*"})
    async with served(create_app(database, settings)) as (port, _), connected_to(port) as raw:
        await raw.send(head)
        answer = await raw.receive()
    assert answer.startswith(b"HTTP/1.1 403 ")
    (line,) = refusals(caplog)
    assert line.endswith("the request has no Host")


def test_a_proxy_may_name_the_default_port_and_capitals() -> None:
    origins = Origins()
    assert origins.allows("https://app.example", "App.Example:443")
    assert origins.allows("http://app.example", "app.example:80")
    assert not origins.allows("https://app.example", "app.example:80")
    assert not origins.allows("https://app.example", None)
    assert not origins.allows("https://app.example", "")


def test_a_listed_origin_may_have_any_port() -> None:
    origins = Origins(("http://localhost:*", "https://[::1]:*"))
    for port in ("", ":1", ":5173", ":65535"):
        assert origins.allows(f"http://localhost{port}", "brain.example")
        assert origins.allows(f"https://[::1]{port}", "brain.example")
        assert not origins.allows(f"https://localhost{port}", "brain.example")
        assert not origins.allows(f"http://localhost{port}.example", "brain.example")
        assert not origins.allows(f"http://localhost.example{port}", "brain.example")
    for near in (
        "http://localhost:",
        "http://localhost:x",
        "http://localhost:*x",
        "http://localhost:1:2",
    ):
        assert not origins.allows(near, "brain.example")


async def test_an_allowed_page_may_send_the_cookie_of_a_proxy_and_read_the_headers(
    client: AsyncClient,
) -> None:
    response = await client.get("/api/workflows", headers={"origin": ALLOWED})
    assert response.headers["access-control-allow-credentials"] == "true"
    exposed = response.headers["access-control-expose-headers"].lower()
    assert all(name in exposed for name in ("etag", "retry-after", "www-authenticate"))
    asked = {"origin": ALLOWED, "access-control-request-method": "GET"}
    response = await client.options("/api/workflows", headers=asked)
    assert response.headers["access-control-allow-credentials"] == "true"


def test_no_client_can_fill_the_log_with_refusals(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    origins = Origins()
    with caplog.at_level(logging.WARNING):
        for number in range(10_000):
            assert not origins.allows(f"http://{number}.example/{'x' * 10_000}", "here")
        assert len(refusals(caplog)) == MOST_KINDS
        assert max(map(len, refusals(caplog))) < 1000

        monkeypatch.setattr("brain.log_limit.BETWEEN_LINES_SECONDS", 0.0)
        assert not origins.allows("http://0.example", "here")
    assert len(refusals(caplog)) == MOST_KINDS + 1
