"""Clients of feeds."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.end_to_end.brain import PATIENCE_SECONDS, RunningBrain, message

QUICKLY = {"BRAIN_FEED_INTERVAL_SECONDS": "0.02"}


@asynccontextmanager
async def following(brain: RunningBrain, path: str, **options: Any) -> AsyncIterator[Any]:
    """Connect to `/ws/` and `path`."""
    url = f"ws://localhost:{brain.port}/ws/{path}"
    async with connect(url, proxy=None, max_size=None, **options) as client:
        yield client


async def state(client: ClientConnection) -> Any:
    """Return the data of the next message."""
    return (await message(client))["data"]


async def state_until(client: ClientConnection, last: Any) -> list[Any]:
    """Return the data of the next messages, up to one that is `last`."""
    states = [await state(client)]
    while states[-1] != last:
        states.append(await state(client))
    return states


async def refusal(brain: RunningBrain, path: str, **options: Any) -> int:
    """Return the status with which a client is refused; 101 if it is not."""
    try:
        async with following(brain, path, **options):
            return 101
    except InvalidStatus as refused:
        return refused.response.status_code


async def closing(client: ClientConnection) -> int:
    """Receive until the connection is closed; return the close code."""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                await client.recv()
    except ConnectionClosed as closed:
        assert closed.rcvd is not None
        return closed.rcvd.code


async def define(
    connection: asyncpg.Connection, name: str, query: str, *channels: str, **options: Any
) -> None:
    """Define a feed."""
    given = ", ".join(f"{option} => {json.dumps(value)}" for option, value in options.items())
    await connection.execute(
        f"SELECT brain.define_feed($1, $2, $3{', ' + given if given else ''})",
        name,
        query,
        list(channels),
    )


class Questions:
    """
    A query that returns 1, and how often it runs.

    It may write nothing, so the server's statistics of a table that it reads count it.
    """

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    async def query(self, argument: str = "") -> str:
        await self._connection.execute("CREATE TABLE IF NOT EXISTS asked ()")
        flushed = "pg_stat_force_next_flush()::text IS NOT NULL"
        return (
            f"SELECT CASE WHEN (SELECT count(*) FROM asked) = 0 AND {flushed}"
            f" THEN to_jsonb(1{argument}) END"
        )

    async def count(self) -> int:
        number: int = await self._connection.fetchval(
            "SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'asked'"
        )
        return number
