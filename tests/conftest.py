from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from brain.database.migrations import migrate, shipped
from tests.postgres import new_database, server_for_tests


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a server on which databases may be made."""
    with server_for_tests() as url:
        yield url


@pytest.fixture(scope="session")
async def template(postgres: str) -> AsyncIterator[str]:
    """The name of a database that has been migrated and is never used itself."""
    async with new_database(postgres) as url:
        await migrate(url, shipped())
        yield urlsplit(url).path.removeprefix("/")


@pytest.fixture
async def database(postgres: str, template: str) -> AsyncIterator[str]:
    """The URL of a migrated database of the test's own."""
    async with new_database(postgres, template) as url:
        yield url


@pytest.fixture
async def connection(database: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection to `database`, as an application would have it."""
    connection = await asyncpg.connect(database)
    yield connection
    await connection.close()


@pytest.fixture(autouse=True)
async def nothing_goes_wrong_out_of_sight() -> AsyncIterator[None]:
    """Fail a test that leaves a task behind, or an exception that nobody saw."""
    loop = asyncio.get_running_loop()
    unseen: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: unseen.append(context))
    before = asyncio.all_tasks()
    yield
    loop.set_exception_handler(None)
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    assert not left, f"tasks left behind: {left}"
    assert not unseen, f"exceptions that nobody saw: {unseen}"
