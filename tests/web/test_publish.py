"""Publishing over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from httpx2 import AsyncClient, Response

from brain.app import build_app
from tests.session.test_commands import token, with_secret
from tests.session.v1_client import v1_client
from tests.transport.served import served

PATH = "/api/brain/publish"
GREETING = {"channel": "news", "type": "greeting", "data": {"text": "hello"}}


@pytest.fixture
async def port(database: str) -> AsyncIterator[int]:
    async with served(build_app(database, with_secret())) as (port, _):
        yield port


@pytest.fixture
async def http(port: int) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(trust_env=False, base_url=f"http://127.0.0.1:{port}") as client:
        yield client


async def post(http: AsyncClient, body: Any, **claims: Any) -> Response:
    bearer = token("cid", **{"publish": ["news"], **claims})
    return await http.post(PATH, json=body, headers={"authorization": f"Bearer {bearer}"})


async def test_a_message_reaches_all_subscribers_and_its_transaction_can_be_awaited(
    port: int, http: AsyncClient
) -> None:
    async with v1_client(port, token("ann")) as client:
        await client.subscribe("news")
        response = await post(http, GREETING)
        assert response.status_code == 200
        txid = response.json()["txid"]

        frame = await client.receive()
        assert (frame["op"], frame["type"], frame["data"]) == (
            "message",
            "greeting",
            {"text": "hello"},
        )
        assert frame["txid"] == txid
        assert (await client.ask("until", txid=txid))["txid"] == txid


async def test_a_message_to_a_user_reaches_no_other(port: int, http: AsyncClient) -> None:
    async with v1_client(port, token("ann")) as ann, v1_client(port, token("ben")) as ben:
        for client in (ann, ben):
            await client.subscribe("news")
        await post(http, GREETING | {"to": "ann"})
        await post(http, GREETING | {"type": "for all"})
        assert [one["type"] for one in await ann.frames(2)] == ["greeting", "for all"]
        assert (await ben.receive())["type"] == "for all"


async def test_numbers_keep_their_digits_and_data_may_be_left_out(
    http: AsyncClient, connection: asyncpg.Connection
) -> None:
    bearer = {"authorization": f"Bearer {token('cid', publish=['news'])}"}
    headers = {**bearer, "content-type": "application/json"}
    text = '{"channel": "news", "type": "n", "data": 12345678901234567890.125}'
    assert (await http.post(PATH, content=text, headers=headers)).status_code == 200
    assert (await post(http, {"channel": "news", "type": "n"})).status_code == 200

    sent = await connection.fetch(
        "SELECT data FROM brain.events WHERE channel = 'news' ORDER BY id"
    )
    assert [one["data"] for one in sent] == ["12345678901234567890.125", "null"]


@pytest.mark.parametrize(
    ("body", "status", "named"),
    [
        ({"channel": "news"}, 422, "type"),
        ({"channel": "news", "type": ""}, 422, "type"),
        ({"channel": "n\0", "type": "t"}, 422, "channel"),
        ({"channel": "news", "type": "t", "recipient": "ann"}, 422, "recipient"),
        ([], 422, "object"),
        ({"channel": "news", "type": "t", "data": "\0"}, 422, "cannot be published"),
        ({"channel": "news", "type": "t", "data": "x" * 600_000}, 413, "cannot be published"),
        ({"channel": "news", "type": "t", "data": "x" * (2**20 + 1)}, 413, ""),
        ({"channel": "orders", "type": "t"}, 403, "does not allow"),
        ({"channel": "brain.watches", "type": "t"}, 403, "does not allow"),
    ],
)
async def test_what_cannot_be_published_is_refused_with_a_sentence(
    http: AsyncClient, body: Any, status: int, named: str
) -> None:
    response = await post(http, body)
    assert response.status_code == status
    assert named in response.text


async def test_without_a_right_or_a_token_nothing_is_published(
    http: AsyncClient, connection: asyncpg.Connection
) -> None:
    assert (await http.post(PATH, json=GREETING)).status_code == 401
    assert (await post(http, GREETING, publish=[])).status_code == 403
    plain = await http.post(
        PATH, content="x", headers={"authorization": f"Bearer {token('cid', publish='*')}"}
    )
    assert (plain.status_code, "application/json" in plain.text) == (415, True)
    assert (
        await connection.fetchval("SELECT count(*) FROM brain.events WHERE channel = 'news'") == 0
    )
