from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
from hypothesis import HealthCheck, settings

from brain.database.migrations import migrate
from brain.database.schema_files import core_schema
from tests.end_to_end.brain import RunningBrain, has_sent_everything, running_brain
from tests.postgres import ResettableDatabase, new_database, server_for_tests
from tests.schemas import every_schema

# How long it takes to make examples says how busy the machine is.
settings.register_profile("brain", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("brain")


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a server on which databases may be made."""
    with server_for_tests() as url:
        yield url


@pytest.fixture(scope="session")
async def template(postgres: str) -> AsyncIterator[str]:
    """The name of a database in which all systems are on, and which is never used itself."""
    async with new_database(postgres) as url:
        await migrate(url, every_schema())
        yield urlsplit(url).path.removeprefix("/")


@pytest.fixture(scope="session")
async def core_template(postgres: str) -> AsyncIterator[str]:
    """The name of a database in which no system is on, and which is never used itself."""
    async with new_database(postgres) as url:
        await migrate(url, [core_schema()])
        yield urlsplit(url).path.removeprefix("/")


@pytest.fixture(scope="module")
async def module_database(postgres: str, template: str) -> AsyncIterator[ResettableDatabase]:
    """A migrated database for all tests of a module; each uses it by `shared_database`."""
    async with new_database(postgres, template) as url:
        yield await ResettableDatabase.at(url)


@pytest.fixture(scope="module")
def brain_settings() -> dict[str, str]:
    """The settings of `module_brain`; a module that needs others defines this fixture anew."""
    return {}


@pytest.fixture(scope="module")
async def module_brain(
    module_database: ResettableDatabase,
    brain_settings: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[RunningBrain]:
    """A Brain for all tests of a module; each uses it by `shared_brain`."""
    folder = tmp_path_factory.mktemp("module_brain")
    options = ("--database-url", module_database.url)
    async with running_brain(folder, *options, **brain_settings) as brain:
        yield brain


@pytest.fixture
async def shared_database(module_database: ResettableDatabase) -> str:
    """The URL of the module's database, as it was when it had been migrated."""
    await module_database.reset()
    return module_database.url


@pytest.fixture
async def shared_brain(module_brain: RunningBrain, shared_database: str) -> RunningBrain:
    """The module's Brain, which has sent everything that happened before this test."""
    await has_sent_everything(module_brain, shared_database)
    return module_brain


@pytest.fixture
async def database(postgres: str, template: str) -> AsyncIterator[str]:
    """The URL of a database of the test's own in which all systems are on."""
    async with new_database(postgres, template) as url:
        yield url


@pytest.fixture
async def core_database(postgres: str, core_template: str) -> AsyncIterator[str]:
    """The URL of a database of the test's own in which no system is on."""
    async with new_database(postgres, core_template) as url:
        yield url


@pytest.fixture
async def connection(database: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection to `database`, as an application would have it."""
    connection = await asyncpg.connect(database)
    yield connection
    await connection.close()


@pytest.fixture(autouse=True)
async def nothing_goes_wrong_out_of_sight() -> AsyncIterator[None]:
    """Fail a test that leaves a task behind, or an exception that was not raised in it."""
    loop = asyncio.get_running_loop()
    unseen: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: unseen.append(context))
    before = asyncio.all_tasks()
    yield
    loop.set_exception_handler(None)
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    assert not left, f"tasks left behind: {left}"
    wrong = [context for context in unseen if not is_harmless(context)]
    assert not wrong, f"exceptions that were not raised in the test: {wrong}"


def is_harmless(context: dict[str, Any]) -> bool:
    """Return True for what asyncpg leaves behind if connecting is cancelled as the socket opens."""
    exception = context.get("exception")
    return isinstance(exception, ConnectionError) and "unexpected connection_lost" in str(exception)
