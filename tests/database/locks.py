"""Locks that others hold, and what waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import asyncpg


async def becomes(condition: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(60):
        while not await condition():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def locked(database: str, *tables: str) -> AsyncIterator[None]:
    """Hold tables locked, as an ALTER TABLE in a transaction that goes on would."""
    holder = await asyncpg.connect(database)
    try:
        async with holder.transaction():
            await holder.execute(f"LOCK TABLE {', '.join(tables)} IN ACCESS EXCLUSIVE MODE")
            yield
    finally:
        await holder.close()
