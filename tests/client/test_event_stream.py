"""Subscriptions where no WebSocket gets through."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from brain.client import Brain
from tests.client.blocking_proxy import BlockingProxy, blocking_proxy
from tests.client.following import next_of, ops, up_to
from tests.end_to_end.brain import RunningBrain, becomes


@pytest.fixture
async def proxy(shared_brain: RunningBrain) -> AsyncIterator[BlockingProxy]:
    async with blocking_proxy(shared_brain.port) as proxy:
        yield proxy


async def insert(orders: asyncpg.Connection, number: int) -> None:
    await orders.execute("INSERT INTO orders VALUES ($1, 'new', 1)", number)


async def test_server_sent_events_take_over_where_a_proxy_refuses_websockets(
    proxy: BlockingProxy, orders: asyncpg.Connection
) -> None:
    await insert(orders, 1)
    async with Brain(proxy.url) as brain:
        changes = brain.subscribe("orders", snapshot=True, where={"status": "new"}, limit=1)
        assert ops(await up_to(changes, "live"))[0] == ("snapshot", 1)
        await insert(orders, 2)
        assert ops([await next_of(changes)]) == [("insert", 2)]
    assert proxy.streams == 1


async def test_a_stream_that_is_cut_goes_on_without_loss_and_without_asking_for_a_websocket(
    proxy: BlockingProxy, orders: asyncpg.Connection
) -> None:
    async with Brain(proxy.url) as brain:
        changes = brain.subscribe("orders", snapshot=True)
        await up_to(changes, "live")
        refused = proxy.refused
        for number in range(5):
            await insert(orders, number)
            proxy.cut()
        got = [await next_of(changes) for _ in range(2)]
        while len([change for change in got if change.op == "insert"]) < 5:
            got.append(await next_of(changes))
    inserted = [each for each in ops(got) if each[0] == "insert"]
    assert inserted == [("insert", number) for number in range(5)]
    assert (proxy.refused, proxy.streams > 1) == (refused, True)


async def test_server_sent_events_take_over_after_websockets_had_worked(
    proxy: BlockingProxy, orders: asyncpg.Connection
) -> None:
    proxy.blocks_websockets = False
    async with Brain(proxy.url) as brain:
        changes = brain.subscribe("orders", snapshot=True)
        await up_to(changes, "live")
        assert proxy.streams == 0
        proxy.blocks_websockets = True
        proxy.cut()
        await insert(orders, 1)
        assert ops(await up_to(changes, "live"))[-2:] == [("insert", 1), ("live", None)]
    assert proxy.streams == 1


async def test_a_websocket_is_tried_again_once_streams_fail_too(
    shared_brain: RunningBrain, orders: asyncpg.Connection
) -> None:
    async with blocking_proxy(shared_brain.port) as proxy, Brain(proxy.url) as brain:
        changes = brain.subscribe("orders", snapshot=True)
        await up_to(changes, "live")
        target, proxy.target = proxy.target, 1
        proxy.cut()
        streams = proxy.streams
        await insert(orders, 1)
        task = asyncio.create_task(next_of(changes))
        await becomes(lambda: proxy.streams > streams)
        proxy.target, proxy.blocks_websockets = target, False
        assert ops([await task]) == [("insert", 1)]
        assert brain.status.state in ("live", "catching-up")


async def test_the_transport_can_be_forced(
    proxy: BlockingProxy, orders: asyncpg.Connection
) -> None:
    proxy.blocks_websockets = False
    async with Brain(proxy.url, transport="sse") as brain:
        await up_to(brain.subscribe("orders", snapshot=True), "live")
    assert proxy.streams == 1
