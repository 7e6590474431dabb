"""Publishing, waiting for a transaction, and presence."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import asyncpg
import jwt
import pytest

from brain.client import Brain, ConnectionLost, NeedsWebSocket, Refused
from tests.client.blocking_proxy import blocking_proxy
from tests.client.following import PATIENCE_SECONDS, next_of
from tests.end_to_end.brain import RunningBrain, becomes, running_brain
from tests.proxy import proxy_to

SECRET = "0123456789abcdef0123456789abcdef"


def token(user: str, **claims: object) -> str:
    return jwt.encode({"sub": user, "exp": int(time.time()) + 600, **claims}, SECRET)


async def test_a_published_message_comes_with_the_transaction_that_publish_returns(
    shared_brain: RunningBrain, orders: asyncpg.Connection
) -> None:
    async with Brain(shared_brain.http) as brain:
        changes = brain.subscribe("news")
        waiting = asyncio.create_task(next_of(changes))
        await becomes(lambda: brain.status.state == "live")
        txid = await brain.publish("news", "greeting", {"total": 1.5, "text": "hello"})
        change = await waiting
    assert (change.op, change.type, change.txid) == ("message", "greeting", txid)
    assert change.data == {"total": 1.5, "text": "hello"}


async def test_until_returns_once_a_transaction_has_been_sent(
    shared_brain: RunningBrain, orders: asyncpg.Connection
) -> None:
    async with orders.transaction():
        await orders.execute("INSERT INTO orders VALUES (1, 'new', 1)")
        txid = await orders.fetchval("SELECT pg_current_xact_id()::text")
    async with Brain(shared_brain.http) as brain, asyncio.timeout(PATIENCE_SECONDS):
        await brain.until(txid)


async def test_a_loop_that_does_not_read_holds_up_no_request(
    shared_brain: RunningBrain, orders: asyncpg.Connection
) -> None:
    async with Brain(shared_brain.http) as brain, asyncio.timeout(PATIENCE_SECONDS):
        idle, busy = brain.subscribe("orders", name="idle"), brain.subscribe("news")
        first = asyncio.create_task(next_of(idle))
        await becomes(lambda: brain.status.state == "live")
        await orders.execute(
            "INSERT INTO orders SELECT n, 'new', 1 FROM generate_series(1, 9000) n"
        )
        await first
        waiting = asyncio.create_task(next_of(busy))
        while not waiting.done():
            await brain.publish("news", "greeting")
        assert (await waiting).type == "greeting"
        assert (await next_of(idle)).key == [2]


async def test_presence_is_set_and_set_anew_on_another_connection(tmp_path: Path) -> None:
    async with (
        running_brain(
            tmp_path, "--ephemeral", BRAIN_JWT_SECRET=SECRET, BRAIN_PRESENCE_GRACE_SECONDS="0"
        ) as server,
        proxy_to(server.http) as (_, proxy),
        Brain(server.http, token=token("bob")) as watching,
    ):
        seen = watching.subscribe("presence")
        waiting = asyncio.create_task(next_of(seen))
        await becomes(lambda: watching.status.state == "live")
        async with Brain(f"http://127.0.0.1:{proxy.port}", token=token("ann")) as brain:
            await brain.set_presence("away")
            statuses = [(await waiting).data]
            while statuses[-1] != {"userId": "ann", "status": "away"}:
                statuses.append((await next_of(seen)).data)
            await proxy.close()
            while statuses[-1]["status"] != "offline":
                statuses.append((await next_of(seen)).data)
            while statuses[-1] != {"userId": "ann", "status": "away"}:
                statuses.append((await next_of(seen)).data)


async def test_a_request_that_is_not_allowed_raises_what_to_do(tmp_path: Path) -> None:
    async with running_brain(tmp_path, "--ephemeral", BRAIN_JWT_SECRET=SECRET) as server:
        async with Brain(server.http, token=token("ann")) as brain:
            with pytest.raises(Refused) as refused:
                await brain.publish("news", "greeting")
        async with Brain(server.http) as brain:
            with pytest.raises(Refused, match="user"):
                await brain.set_presence("away")
    assert refused.value.code == "not_allowed"
    assert refused.value.advice


async def test_publishing_raises_if_the_connection_breaks_before_the_answer(
    shared_brain: RunningBrain, orders: asyncpg.Connection
) -> None:
    async with (
        proxy_to(shared_brain.http) as (_, proxy),
        Brain(f"http://127.0.0.1:{proxy.port}") as brain,
        asyncio.timeout(PATIENCE_SECONDS),
    ):
        await brain.publish("news", "first")
        proxy.swallow()
        publishing = asyncio.create_task(brain.publish("news", "second"))
        await asyncio.sleep(0)
        await proxy.close()
        with pytest.raises(ConnectionLost, match="may have been"):
            await publishing
        await brain.publish("news", "third")


async def test_what_needs_a_websocket_says_so_where_none_gets_through(
    shared_brain: RunningBrain, orders: asyncpg.Connection
) -> None:
    async with blocking_proxy(shared_brain.port) as proxy, Brain(proxy.url) as brain:
        with pytest.raises(NeedsWebSocket):
            await brain.until("1")
        with pytest.raises(NeedsWebSocket):
            await brain.set_presence("away")


async def test_messages_are_published_by_http_where_no_websocket_gets_through(
    shared_brain: RunningBrain, orders: asyncpg.Connection
) -> None:
    async with blocking_proxy(shared_brain.port) as proxy, Brain(proxy.url) as brain:
        changes = brain.subscribe("news")
        waiting = asyncio.create_task(next_of(changes))
        await becomes(lambda: brain.status.state == "live")
        txid = await brain.publish("news", "greeting", {"total": 1.5})
        got = [await waiting]
        while got[-1].op != "message":
            got.append(await next_of(changes))
    assert (got[-1].type, got[-1].data, got[-1].txid) == ("greeting", {"total": 1.5}, txid)


async def test_a_message_that_is_refused_by_http_says_why(tmp_path: Path) -> None:
    async with (
        running_brain(tmp_path, "--ephemeral", BRAIN_JWT_SECRET=SECRET) as server,
        Brain(server.http, transport="sse", token=token("ann")) as brain,
    ):
        with pytest.raises(Refused) as refused:
            await brain.publish("news", "greeting")
    assert refused.value.code == 403
