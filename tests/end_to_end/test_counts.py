"""The number of clients, queried by a backend."""

from __future__ import annotations

import asyncio
from pathlib import Path

import asyncpg

from brain.systems.cloud_agents.publishing import get_authenticated_clients_count, get_clients_count
from tests.end_to_end.brain import PATIENCE_SECONDS, running_brain


async def test_a_backend_may_query_the_number_of_clients(
    tmp_path: Path, database: str, connection: asyncpg.Connection
) -> None:
    async with running_brain(tmp_path, "--database-url", database) as brain:
        async with brain.client("/ws?token=ann"), brain.client("/ws?token=bob"), brain.client():
            async with asyncio.timeout(PATIENCE_SECONDS):
                while await get_clients_count(connection=connection) != 3:
                    await asyncio.sleep(0.05)
            assert await get_authenticated_clients_count(connection=connection) == 2
        async with asyncio.timeout(PATIENCE_SECONDS):
            while await get_clients_count(connection=connection):
                await asyncio.sleep(0.05)
    assert await get_authenticated_clients_count(connection=connection) == 0
