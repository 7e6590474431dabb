"""What a client is sent while its session reads the log, with a hub to which the test delivers."""

from __future__ import annotations

import asyncio

import asyncpg
import orjson
import pytest
from websockets.asyncio.client import connect

from brain.database.connection import opened_pool
from brain.message.cursor import Cursor
from brain.message.event import Batch
from tests.transport.served import application, new_hub, served


@pytest.mark.parametrize(
    ("query", "types"), [("", ["reset"]), ("&snapshot", ["reset", "snapshot"])]
)
async def test_a_client_whose_history_is_lost_while_its_cursor_is_looked_up_is_reset_once(
    database: str, connection: asyncpg.Connection, query: str, types: list[str]
) -> None:
    hub = new_hub()
    async with (
        opened_pool(database) as pool,
        served(application(hub, pool)) as (port, _),
        asyncio.timeout(30),
    ):
        url = f"ws://127.0.0.1:{port}/ws?cursor={Cursor(9, 5)}{query}"
        async with connect(url, proxy=None, compression=None) as client:
            async with connection.transaction():
                await connection.execute("LOCK TABLE brain.ticks")
                assert orjson.loads(await client.recv())["type"] == "connected"
                while not hub.statistics().lagging:
                    await asyncio.sleep(0.01)
                hub.deliver(Batch((), Cursor(0, 9), follows=False))
            while any(task.get_name() == "catch-up" for task in asyncio.all_tasks()):
                await asyncio.sleep(0.01)

            await client.send("{}")
            received = [orjson.loads(await client.recv())["type"] for _ in (*types, "echo")]
            assert received == [*types, "echo"]
