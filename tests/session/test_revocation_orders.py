"""A revocation holds in whatever order it, the token and the node's knowledge of it come."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import asyncpg
import orjson
import pytest
from httpx2 import AsyncClient
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from brain.app import build_app
from brain.close_codes import CloseCode
from brain.system import installed_systems
from brain.web.services import Services
from tests.raw_websocket import connected_to
from tests.session.test_access import MISSIONS_ONLY, refusal
from tests.session.test_commands import token, with_secret
from tests.transport.served import served

REVOKE = "SELECT brain.revoke('ann')"


async def becomes(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


def is_revoked(services: Services) -> Callable[[], bool]:
    """Return whether the node knows that ann was revoked."""
    verifier = services.authority._verifier
    assert verifier._revocations is not None
    revocations = verifier._revocations
    return lambda: revocations.is_revoked("ann", None)


def close_code(closed: ConnectionClosed) -> int:
    assert closed.rcvd is not None
    return closed.rcvd.code


async def end_of(url: str) -> int:
    """Return the code with which a connection ends, or the status of a refused handshake."""
    try:
        async with asyncio.timeout(20), connect(url, proxy=None) as client:
            while True:
                text = orjson.loads(await client.recv())
                assert text["type"] != "event"
    except ConnectionClosed as closed:
        return close_code(closed)
    except InvalidStatus as refused:
        return int(refused.response.status_code)


@pytest.mark.parametrize(
    "path", ["/ws?channel=missions&", "/ws/channel/missions?", "/ws/missions?"]
)
async def test_a_user_who_is_revoked_while_being_admitted_is_closed(
    database: str, connection: asyncpg.Connection, path: str
) -> None:
    await connection.execute(MISSIONS_ONLY)
    await connection.execute(
        "SELECT brain.define_feed("
        "'missions', 'SELECT to_jsonb(count(*)) FROM missions', ARRAY['missions'])"
    )
    app = build_app(database, with_secret(), list(installed_systems().values()))
    async with served(app) as (port, _):
        async with connection.transaction():
            await connection.execute("LOCK TABLE gate")
            one = asyncio.create_task(end_of(f"ws://127.0.0.1:{port}{path}token={token()}"))
            admin = await asyncpg.connect(database)
            while not await admin.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                pass
            await admin.execute(REVOKE)
            await admin.close()
            await becomes(is_revoked(app.state.services))
        assert await one in (CloseCode.TOKENS_REVOKED, 401)


async def test_a_request_whose_body_comes_after_the_revocation_publishes_nothing(
    database: str, connection: asyncpg.Connection
) -> None:
    app = build_app(database, with_secret(), list(installed_systems().values()))
    body = b'{"channel": "news", "message": {}}'
    head = (
        "POST /api/ws/broadcast HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {token(publish=['*'])}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    async with served(app) as (port, _), connected_to(port) as raw:
        await raw.send(head.encode() + body[:5])
        await connection.execute(REVOKE)
        await becomes(is_revoked(app.state.services))
        await raw.send(body[5:])
        assert (await raw.receive()).startswith(b"HTTP/1.1 401 ")
    assert not await connection.fetchval("SELECT count(*) FROM brain.events WHERE channel = 'news'")


async def test_a_revocation_that_is_not_in_the_log_any_more_closes_the_user(
    database: str, connection: asyncpg.Connection
) -> None:
    app = build_app(database, with_secret(), list(installed_systems().values()))
    async with served(app) as (port, _):
        url = f"ws://127.0.0.1:{port}/ws/channel/missions?token="
        async with (
            connect(url + token(), proxy=None) as ann,
            connect(url + token("bob"), proxy=None),
        ):
            await ann.recv()
            async with connection.transaction():
                await connection.execute(REVOKE)
                await connection.execute("DELETE FROM brain.events")
                await connection.execute("UPDATE brain.ticks SET nonce = nonce + 1")
            await connection.execute("SELECT brain.publish('any', 'any', '{}')")
            with pytest.raises(ConnectionClosed) as closed:
                async with asyncio.timeout(20):
                    while True:
                        await ann.recv()
            assert close_code(closed.value) == CloseCode.TOKENS_REVOKED


async def test_before_the_list_was_read_no_token_is_accepted(
    database: str, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brain.app.STARTUP_SECONDS", 0.1)
    await connection.execute(REVOKE)
    systems = list(installed_systems().values())
    app = build_app(database, with_secret(public_channels="workflows"), systems)
    async with connection.transaction():
        await connection.execute("LOCK TABLE brain.revocations")
        async with served(app) as (port, _):
            ws, http = f"ws://127.0.0.1:{port}", f"http://127.0.0.1:{port}"
            for path in ("/ws", "/ws/connect", "/ws/workflows", "/"):
                assert await refusal(f"{ws}{path}?token={token()}") == 503
            async with AsyncClient(trust_env=False, base_url=http) as client:
                for path in ("/api/brain/snapshot/tasks", "/api/workflows", "/api/ws/stats"):
                    found = await client.get(path, params={"token": token("bob")})
                    assert found.status_code == 503, path
                assert (await client.get("/api/workflows")).status_code == 200
                await connection.execute("ROLLBACK")
                await becomes(is_revoked(app.state.services))
                found = await client.get("/api/workflows", params={"token": token("bob")})
                assert found.status_code == 200
                found = await client.get("/api/workflows", params={"token": token()})
                assert found.status_code == 401


async def test_a_token_of_an_issuer_whose_clock_is_ahead_is_revoked_too(
    database: str, connection: asyncpg.Connection
) -> None:
    systems = list(installed_systems().values())
    app = build_app(database, with_secret(jwt_leeway_seconds=2), systems)
    async with served(app) as (port, _):
        url = f"ws://127.0.0.1:{port}/ws/connect?token="
        ahead = token(iat=time.time() + 1)
        async with connect(url + ahead, proxy=None) as client:
            await client.recv()
            await connection.execute(REVOKE)
            with pytest.raises(ConnectionClosed):
                await client.recv()
        http = f"http://127.0.0.1:{port}"
        async with AsyncClient(trust_env=False, base_url=http) as web, asyncio.timeout(20):

            async def status(given: str) -> int:
                found = await web.get("/api/workflows", params={"token": given})
                return int(found.status_code)

            # Also when the time has come that the token names, and newer ones are accepted.
            while await status(token(iat=time.time())) == 401:
                assert await status(ahead) == 401
            assert await status(ahead) == 401
