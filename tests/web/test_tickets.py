"""Tickets: what opens a stream of events for a browser, which can send no token with it."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import asyncpg
import pytest
from httpx2 import AsyncClient, Response
from websockets.asyncio.client import connect

from brain.app import build_app
from brain.settings import Settings
from tests.session.event_stream_client import Stream, stream
from tests.session.test_commands import token, with_secret
from tests.transport.served import served

TABLE = """
    CREATE TABLE orders (id int PRIMARY KEY, owner text);
    SELECT brain.watch('orders', 'orders', '{id}', rules => '{"owner": "sub"}');
    INSERT INTO orders VALUES (1, 'ann'), (2, 'ben');
"""


@pytest.fixture
async def port(database: str, connection: asyncpg.Connection) -> AsyncIterator[int]:
    await connection.execute(TABLE)
    async with served(build_app(database, with_secret())) as (port, _):
        yield port


async def asked(port: int, bearer: str | None, **query: str) -> Response:
    headers = {} if bearer is None else {"authorization": f"Bearer {bearer}"}
    async with AsyncClient(trust_env=False, base_url=f"http://127.0.0.1:{port}") as http:
        return await http.post("/api/brain/ticket", headers=headers, params=query)


async def ticket(port: int, bearer: str) -> str:
    response = await asked(port, bearer)
    assert response.status_code == 200, response.text
    return str(response.json()["ticket"])


@asynccontextmanager
async def refused(port: int, **parameters: Any) -> AsyncIterator[Stream]:
    async with stream(port, channel="orders", **parameters) as client:
        assert client.status != 200
        yield client


async def status(port: int, **parameters: Any) -> int:
    async with stream(port, channel="orders", **parameters) as client:
        return client.status


async def test_a_ticket_opens_a_stream_of_its_user_at_every_node(database: str, port: int) -> None:
    issued = await ticket(port, token("ann"))
    async with served(build_app(database, with_secret())) as (other, _):
        for each in (port, other):
            async with stream(each, channel="orders", snapshot="", ticket=issued) as client:
                hello, subscribed, page, _end = await client.frames(4)
                assert hello["user"] == "ann"
                assert subscribed["restricted"] is True
                assert [row["key"] for row in page["rows"]] == [[1]]


async def test_a_ticket_lives_as_long_as_its_token(port: int) -> None:
    response = await asked(port, token("ann", 60))
    assert response.headers["cache-control"] == "no-store"
    expires_at = datetime.fromisoformat(response.json()["expires_at"]).timestamp()
    assert abs(expires_at - time.time() - 60) < 30
    forever = await asked(port, token("ann", 10**15))
    assert forever.json()["expires_at"] is None


async def test_a_stream_ends_with_its_token_and_the_ticket_is_refused_then(database: str) -> None:
    app = build_app(database, with_secret(jwt_leeway_seconds=0))
    async with served(app) as (port, _):
        issued = await ticket(port, token("ann", 3))
        async with stream(port, channel="orders", ticket=issued) as client:
            closed = (await client.until("closed"))[-1]
            assert closed["code"] == 4401
        async with refused(port, ticket=issued) as client:
            assert client.status == 401
            assert "the ticket is not valid" in await client.body()


async def test_a_revoked_user_loses_streams_and_tickets(
    port: int, connection: asyncpg.Connection
) -> None:
    issued, other = await ticket(port, token("ann")), await ticket(port, token("ben"))
    async with stream(port, channel="orders", ticket=issued) as client:
        await client.until("live")
        await connection.execute("SELECT brain.revoke('ann')")
        closed = (await client.until("closed"))[-1]
        assert closed["code"] == 4503
    assert await status(port, ticket=issued) == 401
    assert await status(port, ticket=other) == 200


async def test_a_ticket_opens_nothing_but_streams(port: int) -> None:
    issued = await ticket(port, token("ann"))
    async with AsyncClient(trust_env=False, base_url=f"http://127.0.0.1:{port}") as http:
        for query in ({"ticket": issued}, {"token": issued}):
            found = await http.get("/api/brain/snapshot/orders", params=query)
            assert found.status_code == 401
        header = {"authorization": f"Bearer {issued}"}
        found = await http.get("/api/brain/snapshot/orders", headers=header)
        assert found.status_code == 401
    assert (await asked(port, issued)).status_code == 401
    assert await status(port, headers=header) == 401
    async with connect(f"ws://127.0.0.1:{port}/ws/v1?ticket={issued}", proxy=None) as client:
        assert '"user":null' in str(await client.recv())


@pytest.mark.parametrize("bad", ["", "x", "é", "not/base64", "A" * 60, "A" * 20_000])
async def test_what_is_no_ticket_is_refused(port: int, bad: str) -> None:
    async with refused(port, ticket=bad) as client:
        assert client.status == 401
        assert 'error="invalid_token"' in client.headers["www-authenticate"]
        assert "POST /api/brain/ticket issues another one" in await client.body()


async def test_a_changed_ticket_and_a_token_are_none(port: int) -> None:
    issued = await ticket(port, token("ann"))
    for place in (0, 20, len(issued) - 2):
        other = "A" if issued[place] != "A" else "B"
        assert await status(port, ticket=issued[:place] + other + issued[place + 1 :]) == 401
    assert await status(port, ticket=token("ann")) == 401


async def test_a_ticket_of_another_database_is_refused(
    port: int, connection: asyncpg.Connection, core_database: str
) -> None:
    async with served(build_app(core_database, with_secret())) as (other, _):
        issued = await ticket(other, token("ann"))
    assert await status(port, ticket=issued) == 401


async def test_a_ticket_ends_with_the_secret_of_its_token(database: str, port: int) -> None:
    issued = await ticket(port, token("ann"))
    secret = "another secret of 32 bytes or more"
    async with served(build_app(database, with_secret(jwt_secret=secret))) as (other, _):
        assert await status(other, ticket=issued) == 401


async def test_a_token_in_the_address_is_refused_with_the_way_to_a_ticket(port: int) -> None:
    async with refused(port, token=token("ann")) as client:
        assert client.status == 400
        assert "POST /api/brain/ticket" in await client.body()


async def test_the_header_precedes_the_ticket(port: int) -> None:
    issued = await ticket(port, token("ann"))
    headers = {"authorization": f"Bearer {token('ben')}"}
    async with stream(port, channel="orders", ticket=issued, headers=headers) as client:
        hello = await client.frame()
        assert hello is not None and hello["user"] == "ben"


async def test_no_ticket_without_a_token(port: int) -> None:
    for bearer in (None, "invalid"):
        response = await asked(port, bearer)
        assert response.status_code == 401
        assert response.headers["www-authenticate"].startswith("Bearer")


async def test_where_no_token_is_needed_tickets_are_served_all_the_same(database: str) -> None:
    async with served(build_app(database, Settings())) as (port, _):
        for bearer, user in (("test-1", "user_test-1"), (token("ann"), None)):
            issued = await ticket(port, bearer)
            async with stream(port, channel="orders", ticket=issued) as client:
                hello = await client.frame()
                assert hello is not None and hello["user"] == user
        assert await status(port, ticket="invalid") == 200


async def test_while_the_key_cannot_be_read_tickets_are_refused_for_later(
    port: int, connection: asyncpg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    bearer = token("ann")
    async with connection.transaction():
        await connection.execute("LOCK TABLE brain.ticket_key")
        assert (await asked(port, bearer)).status_code == 503
        async with refused(port, ticket="A" * 60) as client:
            assert client.status == 503
    issued = await ticket(port, bearer)
    assert await status(port, ticket=issued) == 200
    assert "brain.ticket_key" in caplog.text
    assert "A" * 60 not in caplog.text


async def test_neither_tokens_nor_tickets_are_logged(
    database: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    bearer = token("ann")
    # Brain's own processes have no log of accesses either.
    async with served(build_app(database, with_secret()), access_log=False) as (port, _):
        issued = await ticket(port, bearer)
        bad = issued[:-3] + "abc"
        assert await status(port, ticket=issued) == 200
        assert await status(port, ticket=bad) == 401
        assert await status(port, token=bearer) == 400
        assert await status(port, ticket=issued, where="{") == 400
    assert "Ticket refused" in caplog.text
    for secret in (bearer, issued, bad):
        assert secret[20:40] not in caplog.text
