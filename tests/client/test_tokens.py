"""Tokens of a few seconds, on a running Brain."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import jwt
import pytest

from brain.client import Brain, Closed, Refused
from brain.client.tokens import renewal_seconds
from tests.client.blocking_proxy import blocking_proxy
from tests.client.following import ORDERS, PATIENCE_SECONDS, next_of, ops, up_to
from tests.end_to_end.brain import RunningBrain, becomes, running_brain

SECRET = "0123456789abcdef0123456789abcdef"
LIFE_SECONDS = 3
OTHER_SECRET = SECRET[::-1]


def token(seconds: float = LIFE_SECONDS, secret: str = SECRET) -> str:
    claims = {"sub": "ann", "exp": int(time.time() + seconds), "channels": ["*"]}
    return jwt.encode(claims, secret)


class Issuer:
    """Issues tokens, and counts them."""

    def __init__(self, seconds: float = LIFE_SECONDS) -> None:
        self.seconds = seconds
        self.issued: list[str] = []

    async def __call__(self) -> str:
        self.issued.append(token(self.seconds))
        return self.issued[-1]


@pytest.fixture
async def server(tmp_path: Path, database: str) -> AsyncIterator[RunningBrain]:
    options = ("--database-url", database)
    async with running_brain(tmp_path, *options, BRAIN_JWT_SECRET=SECRET) as server:
        yield server


@pytest.fixture
async def orders(connection: asyncpg.Connection) -> asyncpg.Connection:
    await connection.execute(ORDERS)
    return connection


async def test_a_token_is_renewed_on_the_open_connection_before_it_expires(
    server: RunningBrain, orders: asyncpg.Connection
) -> None:
    issuer = Issuer()
    states = []
    async with Brain(
        server.http, token=issuer, on_status=lambda status: states.append(status.state)
    ) as brain:
        changes = brain.subscribe("orders", snapshot=True)
        await up_to(changes, "live")
        waiting = asyncio.create_task(next_of(changes))
        await becomes(lambda: len(issuer.issued) >= 4)
        await orders.execute("INSERT INTO orders VALUES (1, 'new', 1)")
        assert ops([await waiting]) == [("insert", 1)]
    assert states == ["catching-up", "live", "closed"]


async def test_a_loop_that_slept_past_its_token_goes_on_with_another_one(
    server: RunningBrain, orders: asyncpg.Connection
) -> None:
    issuer = Issuer()
    async with Brain(server.http, token=issuer) as brain:
        changes = brain.subscribe("orders", snapshot=True)
        await up_to(changes, "live")
        expired = jwt.decode(issuer.issued[0], options={"verify_signature": False})["exp"]
        await becomes(lambda: time.time() > expired + 1)
        await orders.execute("INSERT INTO orders VALUES (1, 'new', 1)")
        assert ("insert", 1) in ops(await up_to(changes, "insert"))


async def test_a_stream_of_events_goes_on_with_another_token(
    server: RunningBrain, orders: asyncpg.Connection
) -> None:
    issuer = Issuer()
    async with blocking_proxy(server.port) as proxy, Brain(proxy.url, token=issuer) as brain:
        changes = brain.subscribe("orders", snapshot=True)
        await up_to(changes, "live")
        assert ops([await next_of(changes)]) == [("live", None)]
        await orders.execute("INSERT INTO orders VALUES (1, 'new', 1)")
        assert ("insert", 1) in ops(await up_to(changes, "insert"))
    assert proxy.streams >= 2


async def test_a_fixed_token_that_expires_ends_the_loop_with_advice(
    server: RunningBrain, orders: asyncpg.Connection
) -> None:
    async with Brain(server.http, token=token()) as brain:
        changes = brain.subscribe("orders", snapshot=True)
        await up_to(changes, "live")
        with pytest.raises(Closed, match="callable") as closed:
            await next_of(changes)
        assert brain.status.state == "closed" and brain.status.advice
    assert closed.value.code == 4401


@pytest.mark.parametrize("transport", ["websocket", "sse"])
async def test_a_fixed_token_of_the_past_is_named(
    server: RunningBrain, orders: asyncpg.Connection, transport: str
) -> None:
    async with Brain(server.http, token=token(-60), transport=transport) as brain:  # type: ignore[arg-type]
        with pytest.raises(Closed, match="the token has expired"):
            await next_of(brain.subscribe("orders"))


async def test_a_token_that_brain_does_not_accept_is_asked_for_once_more(
    server: RunningBrain, orders: asyncpg.Connection
) -> None:
    tokens = [token(secret=OTHER_SECRET), token(60)]
    async with Brain(server.http, token=lambda: tokens.pop(0)) as brain:
        await up_to(brain.subscribe("orders", snapshot=True), "live")
    async with Brain(server.http, token=lambda: token(60, OTHER_SECRET)) as brain:
        with pytest.raises(Refused) as refused:
            await next_of(brain.subscribe("orders"))
    assert refused.value.code == "not_allowed"


async def test_a_callable_that_is_late_with_another_token_is_asked_until_it_has_one(
    server: RunningBrain, orders: asyncpg.Connection
) -> None:
    tokens = [*[token(-60)] * 4, token(60)]
    async with Brain(server.http, token=lambda: tokens.pop(0)) as brain:
        await up_to(brain.subscribe("orders", snapshot=True), "live")
    assert tokens == []


async def test_a_token_of_the_past_by_the_clock_of_the_server_alone_is_asked_for_until_it_is_not(
    server: RunningBrain, orders: asyncpg.Connection
) -> None:
    # By the clock of the client it has ten seconds left; Brain does not accept it.
    tokens = [*[token(10, OTHER_SECRET)] * 4, token(60)]
    async with Brain(server.http, token=lambda: tokens.pop(0)) as brain:
        await up_to(brain.subscribe("orders", snapshot=True), "live")
    assert tokens == []


async def test_a_callable_that_fails_is_asked_again(
    server: RunningBrain, orders: asyncpg.Connection
) -> None:
    calls = 0

    def issue() -> str:
        nonlocal calls
        calls += 1
        if calls < 3:
            raise OSError("the issuer is away")
        return token(60)

    async with Brain(server.http, token=issue) as brain, asyncio.timeout(PATIENCE_SECONDS):
        await up_to(brain.subscribe("orders", snapshot=True), "live")
    assert calls == 3


async def test_revoked_tokens_end_the_loop(
    server: RunningBrain, orders: asyncpg.Connection
) -> None:
    async with Brain(server.http, token=Issuer(600)) as brain:
        changes = brain.subscribe("orders", snapshot=True)
        await up_to(changes, "live")
        await orders.execute("SELECT brain.revoke('ann')")
        with pytest.raises(Closed) as closed:
            await next_of(changes)
        with pytest.raises(StopAsyncIteration):
            await anext(changes)
    assert closed.value.code == 4503


def test_a_token_is_renewed_while_a_part_of_its_life_is_left() -> None:
    assert renewal_seconds(None) == float("inf")
    assert renewal_seconds("no token") == float("inf")
    assert renewal_seconds(token(-60)) == 0
    assert 3500 < renewal_seconds(token(3600)) <= 3540
    assert 6 < renewal_seconds(token(10)) <= 8
