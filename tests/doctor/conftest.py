from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from tests.postgres import new_database


@pytest.fixture
async def empty(postgres: str) -> AsyncIterator[str]:
    """The URL of a database that Brain has never seen."""
    async with new_database(postgres) as url:
        yield url


@pytest.fixture
async def core_connection(core_database: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection to `core_database`, as an application would have it."""
    connection = await asyncpg.connect(core_database)
    yield connection
    await connection.close()
