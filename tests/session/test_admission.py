"""Admission of clients by token, origin and quota, over real sockets."""

from __future__ import annotations

import asyncio
import time
from typing import Any
from urllib.parse import quote

import jwt
import orjson
import pytest
from httpx2 import AsyncClient, Response
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from brain.hub.hub import Hub
from brain.message.cursor import Cursor
from brain.message.event import Batch
from brain.session.connection_limiter import ConnectionLimiter, ConnectionQuotas
from brain.settings import Settings
from brain.transport.http import MOST_HEAD_BYTES
from tests.auth.test_policy import BAD as BAD_TOKENS
from tests.transport.served import a_task, application, new_hub, served

SECRET = "0123456789abcdef0123456789abcdef"


def with_secret(**given: Any) -> Settings:
    return Settings.model_validate({"jwt_secret": SECRET, "jwt_leeway_seconds": 0, **given})


def token(user: str = "ann", seconds: float = 60, **claims: Any) -> str:
    return jwt.encode({"sub": user, "exp": time.time() + seconds, **claims}, SECRET, "HS256")


def follow(port: int, query: str = "", **options: Any) -> connect:
    return connect(f"ws://127.0.0.1:{port}/ws{query}", proxy=None, compression=None, **options)


async def readable(hub: Hub, port: int, query: str = "", **options: Any) -> bool:
    """Return True if a client receives a task."""
    async with follow(port, query, **options) as connection, asyncio.timeout(10):
        assert orjson.loads(await connection.recv())["type"] in ("connected", "auth")
        tick = hub.cursor.tick + 1
        hub.deliver(Batch((a_task("a", tick),), Cursor(tick, 5)))
        await connection.send("an echo, if there was no task")
        while (type := orjson.loads(await connection.recv())["type"]) == "connected":
            pass
        return bool(type == "run_update")


async def test_without_a_secret_every_client_reads_everything() -> None:
    hub = new_hub()
    async with served(application(hub)) as (port, _):
        assert await readable(hub, port)
        assert await readable(hub, port, "?token=whatever")


async def test_where_no_token_is_needed_an_invalid_one_is_ignored() -> None:
    hub = new_hub()
    settings = Settings(development_tokens=False)
    async with served(application(hub, settings=settings)) as (port, _):
        for given in ("whatever", "", token()):
            assert await readable(hub, port, f"?token={given}")
            response = await request_without_a_type(port, given)
            assert response.status_code == 415  # refused for its content type, not its token
    async with served(application(hub, settings=with_secret())) as (port, _):
        assert (await request_without_a_type(port, "whatever")).status_code == 401


async def request_without_a_type(port: int, given: str) -> Response:
    async with AsyncClient(trust_env=False) as client:
        return await client.post(f"http://127.0.0.1:{port}/api/ws/broadcast?token={given}")


async def test_with_a_secret_an_anonymous_client_connects_and_reads_public_channels() -> None:
    hub = new_hub()
    async with served(application(hub, settings=with_secret())) as (port, _):
        assert not await readable(hub, port)
        assert not await readable(hub, port, "?token=abc123")
    async with served(application(hub, settings=with_secret(public_channels="ta*"))) as (port, _):
        assert await readable(hub, port)
        assert not await readable(hub, port, "?channel=others")


async def test_a_token_is_read_from_the_header_a_subprotocol_or_the_url() -> None:
    hub = new_hub()
    async with served(application(hub, settings=with_secret())) as (port, _):
        bearer = {"authorization": f"Bearer {token()}"}
        assert await readable(hub, port, additional_headers=bearer)
        assert await readable(hub, port, f"?token={token()}")
        offered = ["brain.cursor", f"brain.token.{token()}"]
        assert await readable(hub, port, subprotocols=offered)
        async with follow(port, subprotocols=offered) as connection:
            assert connection.subprotocol == "brain.cursor"


async def test_a_token_determines_the_readable_channels() -> None:
    hub = new_hub()
    async with served(application(hub, settings=with_secret())) as (port, _):
        query = "?channel=tasks&channel=others&token="
        assert await readable(hub, port, query + token(channels=["tasks"]))
        assert not await readable(hub, port, query + token(channels=["others"]))


async def test_when_a_token_expires_the_connection_is_closed_with_4401() -> None:
    async with served(application(new_hub(), settings=with_secret())) as (port, server):
        async with follow(port, f"?token={token(seconds=1)}") as connection:
            await connection.recv()
            begun = time.monotonic()
            with pytest.raises(ConnectionClosed) as closed:
                await connection.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 4401
            assert time.monotonic() - begun < 5
        async with asyncio.timeout(10):
            while server.server_state.connections:
                await asyncio.sleep(0.01)


async def test_a_bad_token_is_refused_where_one_is_needed() -> None:
    async with served(application(new_hub(), settings=with_secret())) as (port, _):
        for name, bad in BAD_TOKENS.items():
            given = bad()
            if len(given) > MOST_HEAD_BYTES:
                continue  # the connection is aborted before a response can be sent
            with pytest.raises(InvalidStatus) as refused:
                await connect(f"ws://127.0.0.1:{port}/?token={quote(given)}", proxy=None)
            assert refused.value.response.status_code == (414 if name == "too long" else 401)


async def test_the_connections_of_one_user_are_limited() -> None:
    limiter = ConnectionLimiter(
        ConnectionQuotas(in_all=100, per_address=100, per_user=1, anonymous=1)
    )
    app = application(new_hub(), settings=with_secret(), limiter=limiter)
    async with served(app) as (port, _), follow(port, f"?token={token('ann')}"), follow(port):
        for query, status in ((f"?token={token('ann')}", 429), ("", 503)):
            with pytest.raises(InvalidStatus) as refused:
                await follow(port, query)
            assert refused.value.response.status_code == status
            assert refused.value.response.headers["retry-after"] == "5"
        async with follow(port, f"?token={token('bob')}"):
            pass


GOOD = ["http://HOST", "https://HOST", "https://app.example.org", "http://localhost:3000"]
BAD = [
    "null",
    "",
    "file://",
    "https://",
    "http://",
    "://HOST",
    "HOST",
    "//HOST",
    "ftp://HOST",
    "http:HOST",
    "http://HOST/",
    "http://HOST.",
    "http://HOST.evil.example",
    "http://evil.example",
    "http://evil.example/HOST",
    "http://evil.example?HOST",
    "http://evil.example#HOST",
    "http://evil.exampleHOST",
    "http://HOST@evil.example",
    "http://user@HOST",
    "http://127.0.0.1",
    "http://127.0.0.1:1",
    "http://localhost",
    "https://app.example.org.evil.example",
    "https://evilapp.example.org",
    "https://app.example.org:8443",
    "https://app.example.org/",
    "http://app.example.org",
    "https://APP.example.org",
    "https://app.example.org,http://evil.example",
    "https://example.org",
    "chrome-extension://abcdefgh",
]


async def test_pages_of_other_hosts_may_not_connect() -> None:
    assert len(BAD) >= 30
    allowed = "https://app.example.org http://localhost:3000"
    app = application(new_hub(), settings=Settings.model_validate({"allowed_origins": allowed}))
    async with served(app) as (port, _):
        for origin in GOOD:
            given = origin.replace("HOST", f"127.0.0.1:{port}")
            async with follow(port, additional_headers={"origin": given}):
                pass
        for origin in BAD:
            given = origin.replace("HOST", f"127.0.0.1:{port}")
            with pytest.raises(InvalidStatus) as refused:
                await follow(port, additional_headers={"origin": given})
            assert refused.value.response.status_code == 403, origin
