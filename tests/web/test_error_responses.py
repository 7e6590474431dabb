"""What requests that fail are answered, and WebSockets whose client is gone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import asyncpg
import pytest
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket

from brain.app import build_app
from brain.auth.policy import authority_for
from brain.database.connection import opened_pool
from brain.errors import DatabaseUnreachable
from brain.feeds import routes as feeds
from brain.feeds.reader import FeedReader
from brain.feeds.refresher import FeedRefresher
from brain.problems import Problems
from brain.settings import Settings
from brain.system import installed_systems
from brain.web import revocations
from brain.web.error_responses import exception_handlers
from brain.web.requests import parse_body
from brain.web.revocations import Revocation
from brain.web.services import Services
from tests.raw_websocket import connected_to, handshake
from tests.transport.served import NO_DATABASE, served


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ConnectionRefusedError("nothing listens"), "the database cannot be reached"),
        (TimeoutError(), "the database cannot be reached"),
        (DatabaseUnreachable("nothing listens"), "the database cannot be reached"),
        (asyncpg.InterfaceError("the pool is closed"), "the database cannot be reached"),
        (asyncpg.ConnectionDoesNotExistError("closed"), "the database cannot be reached"),
        (asyncpg.AdminShutdownError("terminating"), "the database cannot be reached"),
        (asyncpg.CannotConnectNowError("starting up"), "the database cannot be reached"),
        (asyncpg.TooManyConnectionsError("too many"), "the database cannot be reached"),
        (asyncpg.InvalidPasswordError("no"), "the database cannot be reached"),
        (asyncpg.UndefinedTableError("no such table"), "the query failed"),
        (asyncpg.QueryCanceledError("statement timeout"), "the query failed"),
        (asyncpg.DivisionByZeroError("division by zero"), "the query failed"),
    ],
)
def test_a_failed_query_is_told_from_a_database_that_cannot_be_reached(
    error: Exception, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def endpoint(request: Request) -> Response:
        raise error

    app = Starlette(
        routes=[Route("/api/sales", endpoint)],
        exception_handlers=exception_handlers(Problems()),
    )
    response = TestClient(app).get("/api/sales")

    assert response.status_code == 503
    assert response.json()["error"].startswith(reason)
    assert "GET /api/sales failed: " in caplog.text


def test_requests_that_fail_without_a_database_are_one_line_of_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    problems = Problems()

    async def endpoint(request: Request) -> Response:
        raise ConnectionRefusedError("nothing listens")

    app = Starlette(
        routes=[Route("/{any}", endpoint)], exception_handlers=exception_handlers(problems)
    )
    client = TestClient(app)
    for number in range(50):
        assert client.get(f"/{number}{'x' * 10_000}").status_code == 503

    (line,) = warnings(caplog)
    assert line.startswith("requests: GET /0x") and len(line) < 1000
    assert [(each.address, each.count) for each in problems.recent()] == [("requests", 50)]


async def test_feeds_that_cannot_be_looked_up_are_one_line_of_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings = Settings()
    services: Services = build_app(NO_DATABASE, settings).state.services
    services = replace(services, authority=authority_for(settings))

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, object]]:
        async with opened_pool(NO_DATABASE) as pool:
            reader = FeedReader(pool, 10_000, 1.0, services.problems)
            yield {"feeds": FeedRefresher(reader, 1.0)}

    app = Starlette(routes=feeds.routes(services), lifespan=lifespan)
    async with served(app) as (port, _), asyncio.timeout(10):
        for number in range(20):
            async with connected_to(port) as raw:
                await raw.send(handshake(f"/ws/{number}{'x' * 5000}"))
                assert (await raw.receive()).startswith(b"HTTP/1.1 503 ")

    (line,) = warnings(caplog)
    assert line.startswith("feeds: cannot look up the feed 0x") and len(line) < 1000
    assert [(each.address, each.count) for each in services.problems.recent()] == [("feeds", 20)]


def test_an_unexpected_error_is_answered_with_json_that_does_not_show_it() -> None:
    async def endpoint(request: Request) -> Response:
        raise RuntimeError("a secret")

    app = Starlette(
        routes=[Route("/", endpoint)], exception_handlers=exception_handlers(Problems())
    )
    response = TestClient(app, raise_server_exceptions=False).get("/")

    assert (response.status_code, response.json()) == (500, {"error": "an internal error"})


async def test_a_client_that_vanishes_during_the_handshake_is_no_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    reached, may_accept = asyncio.Event(), asyncio.Event()

    async def endpoint(websocket: WebSocket) -> None:
        reached.set()
        await may_accept.wait()
        await websocket.accept()

    app = Starlette(
        routes=[WebSocketRoute("/ws", endpoint)],
        exception_handlers=exception_handlers(Problems()),
    )
    async with served(app) as (port, server), asyncio.timeout(10):
        async with connected_to(port) as raw:
            await raw.send(handshake("/ws"))
            await reached.wait()
            raw.reset()
        while server.server_state.connections:
            await asyncio.sleep(0.01)
        may_accept.set()
        while server.server_state.tasks:
            await asyncio.sleep(0.01)

    assert not warnings(caplog)


async def test_a_client_that_vanishes_while_it_sends_a_body_is_no_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    reached = asyncio.Event()
    authority = authority_for(Settings())

    async def endpoint(request: Request) -> Response:
        reached.set()
        await parse_body(request, Revocation, authority.anonymous(), authority)
        raise AssertionError("the body is complete")

    app = Starlette(
        routes=[Route("/", endpoint, methods=["POST"])],
        exception_handlers=exception_handlers(Problems()),
    )
    async with served(app) as (port, server), asyncio.timeout(10):
        async with connected_to(port) as raw:
            await raw.send(post("/", content_length=100) + b'{"user": ')
            await reached.wait()
            raw.reset()
        while server.server_state.connections or server.server_state.tasks:
            await asyncio.sleep(0.01)

    assert not warnings(caplog)


@pytest.mark.parametrize(
    "path", ["/api/brain/users/revoke", "/api/ws/broadcast", "/api/ws/broadcast/all"]
)
async def test_a_client_without_a_right_is_refused_before_it_has_sent_its_body(path: str) -> None:
    settings = Settings(jwt_secret=SecretStr("0123456789abcdef0123456789abcdef"))
    systems = list(installed_systems().values())
    services: Services = build_app(NO_DATABASE, settings).state.services
    app = Starlette(
        routes=[
            *revocations.routes(services),
            *(route for system in systems for route in system.routes(services)),
        ],
        exception_handlers=exception_handlers(Problems()),
    )
    async with served(app) as (port, _), connected_to(port) as raw, asyncio.timeout(10):
        await raw.send(post(path, content_length=1_000_000))

        assert (await raw.receive()).startswith(b"HTTP/1.1 401 ")


def post(path: str, content_length: int) -> bytes:
    """Return the head of a request."""
    return (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {content_length}\r\n\r\n"
    ).encode()


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]
