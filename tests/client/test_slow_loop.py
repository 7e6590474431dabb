"""Loops that are slow, that stop, and that are cancelled."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
from httpx2 import AsyncClient

from brain.client import Brain, connection
from tests.client.following import ORDERS, PATIENCE_SECONDS, next_of, ops, up_to
from tests.end_to_end.brain import RunningBrain, becomes, running_brain
from tests.proxy import proxy_to

ROWS = 20_000
# 20 MB: more than the buffers of two sockets take.
FILL = "INSERT INTO orders SELECT n, repeat('x', 1000), 1 FROM generate_series(1, $1) n"


async def clients(server: RunningBrain) -> int:
    async with AsyncClient(trust_env=False) as http:
        answer = await http.get(f"{server.http}/api/brain/status/ws")
    return int(answer.json()["websocket"]["connected_clients"])


async def has_clients(server: RunningBrain, count: int) -> None:
    """Return once a Brain has so many clients."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await clients(server) != count:
            await asyncio.sleep(0.05)


@pytest.fixture
async def impatient(tmp_path: Path, database: str) -> AsyncIterator[RunningBrain]:
    """A Brain that cuts off clients soon."""
    limits = {"BRAIN_UNREAD_TIMEOUT_SECONDS": "1", "BRAIN_RING_BYTES": "1000000"}
    async with running_brain(tmp_path, "--database-url", database, **limits) as server:
        yield server


async def test_a_slow_loop_that_was_cut_off_gets_everything_once(
    impatient: RunningBrain, connection: asyncpg.Connection
) -> None:
    await connection.execute(ORDERS)
    async with Brain(impatient.http) as brain:
        changes = brain.subscribe("orders", snapshot=True)
        await up_to(changes, "live")
        await connection.execute(FILL, ROWS)
        assert ops([await next_of(changes)]) == [("insert", 1)]
        # What the loop does not ask for waits at the server, which loses patience.
        await has_clients(impatient, 0)
        await connection.execute("INSERT INTO orders VALUES (0, 'last', 1)")
        got = [await next_of(changes)]
        while got[-1].key != [0]:
            got.append(await next_of(changes))
    numbers = [change.key for change in got if change.op == "insert"]
    assert numbers == [[number] for number in [*range(2, ROWS + 1), 0]]


async def test_a_loop_that_ends_closes_its_connection(
    shared_brain: RunningBrain, orders: asyncpg.Connection
) -> None:
    await orders.execute("INSERT INTO orders VALUES (1, 'new', 1)")
    before = await clients(shared_brain)
    async with Brain(shared_brain.http) as brain:
        async for change in brain.subscribe("orders", snapshot=True):
            assert change.op == "snapshot"
            break
        gc.collect()
        await has_clients(shared_brain, before)


async def test_a_loop_that_is_cancelled_or_outlived_leaves_nothing_behind(
    shared_brain: RunningBrain, orders: asyncpg.Connection
) -> None:
    before = asyncio.all_tasks()
    async with Brain(shared_brain.http) as brain:
        changes = brain.subscribe("orders", snapshot=True)
        await up_to(changes, "live")
        waiting = asyncio.create_task(anext(changes))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await orders.execute("INSERT INTO orders VALUES (1, 'new', 1)")
        assert ops([await next_of(changes)]) == [("insert", 1)]

        async def outlive() -> int:
            return len([change async for change in changes])

        outliving = asyncio.create_task(outlive())
        await brain.collection("orders")
        await brain.publish("news", "greeting")
    assert await outliving >= 0
    assert asyncio.all_tasks() == before


async def test_a_connection_over_which_nothing_comes_is_replaced(
    shared_brain: RunningBrain, orders: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        proxy_to(shared_brain.http) as (_, proxy),
        Brain(f"http://127.0.0.1:{proxy.port}") as brain,
    ):
        changes = brain.subscribe("orders", snapshot=True)
        await up_to(changes, "live")
        monkeypatch.setattr(connection, "WATCHDOG_SECONDS", 0.5)
        proxy.swallow()
        await orders.execute("INSERT INTO orders VALUES (1, 'new', 1)")
        waiting = asyncio.create_task(up_to(changes, "insert"))
        await becomes(lambda: proxy.connections >= 2)
        monkeypatch.undo()
        proxy.restore()
        assert ("insert", 1) in ops(await waiting)
