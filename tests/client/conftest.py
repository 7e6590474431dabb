from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from tests.client.following import ORDERS


@pytest.fixture
async def orders(shared_database: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection to the module's database, in which the table `orders` is watched."""
    connection = await asyncpg.connect(shared_database)
    await connection.execute(ORDERS)
    yield connection
    await connection.close()
