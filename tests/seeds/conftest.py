"""Brains that the documents' clients connect to, and the environments of these clients."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import jwt
import pytest
from playwright.async_api import Browser

from tests.end_to_end.brain import READY, RunningBrain, logged, message, running, running_brain
from tests.end_to_end.following import QUICKLY
from tests.end_to_end.test_page import browser
from tests.end_to_end.test_wscat_and_psql import psql
from tests.postgres import new_database
from tests.seeds.front_end import FrontEnd, page_server
from tests.seeds.packages import Packages, installed

__all__ = ["browser", "psql"]

SECRET = "not a secret, but of thirty-two bytes"

OwnBrain = Callable[..., AbstractAsyncContextManager[RunningBrain]]

# A user who has left is offline before the next test.
NO_GRACE = {"BRAIN_PRESENCE_GRACE_SECONDS": "0"}
TABLES = ("tasks", "agents", "sessions", "messages", "missions")


@dataclass(frozen=True)
class Served:
    """A Brain that several tests share, and the URL of its database."""

    brain: RunningBrain
    database: str

    @property
    def address(self) -> str:
        return f"localhost:{self.brain.port}"


def token(seconds: float = 60, secret: str = SECRET, **claims: Any) -> str:
    """Return a signed token of the user ann, valid for this many seconds."""
    return jwt.encode({"sub": "ann", "exp": time.time() + seconds, **claims}, secret, "HS256")


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Packages:
    return installed(tmp_path_factory.mktemp("packages"))


@pytest.fixture
def curl() -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")


@pytest.fixture(scope="session")
def origin() -> Iterator[str]:
    """The origin of the page."""
    with page_server() as origin:
        yield origin


@pytest.fixture
async def front_end(browser: Browser, origin: str) -> AsyncIterator[FrontEnd]:
    """A page without scripts; the scripts that it runs may raise no error."""
    context = await browser.new_context()
    front_end = FrontEnd(await context.new_page())
    await front_end.page.goto(f"{origin}/")
    yield front_end
    await context.close()
    assert front_end.errors == []


@pytest.fixture(scope="session")
async def served(
    postgres: str, template: str, origin: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Served]:
    """A Brain for all tests that accepts any word as a token."""
    folder = tmp_path_factory.mktemp("served")
    environment = {"BRAIN_ALLOWED_ORIGINS": origin, **QUICKLY, **NO_GRACE}
    async with (
        new_database(postgres, template) as url,
        running_brain(folder, "--database-url", url, **environment) as brain,
    ):
        yield Served(brain, url)


@pytest.fixture(scope="session")
async def guarded(
    served: Served, origin: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Served]:
    """A second Brain on the same database, which requires signed tokens."""
    folder = tmp_path_factory.mktemp("guarded")
    options = ("--database-url", served.database)
    environment = {"BRAIN_ALLOWED_ORIGINS": origin, "BRAIN_JWT_SECRET": SECRET, **NO_GRACE}
    async with running_brain(folder, *options, **environment) as brain:
        yield Served(brain, served.database)


@pytest.fixture
def own_brain(origin: str, database: str, tmp_path: Path) -> OwnBrain:
    """Return a function that runs a Brain for this test alone, on a given port or a free one."""

    def own_brain(port: int = 0) -> AbstractAsyncContextManager[RunningBrain]:
        options = ("--database-url", database, "--port", str(port))
        return running_brain(tmp_path, *options, BRAIN_ALLOWED_ORIGINS=origin, **NO_GRACE)

    return own_brain


@pytest.fixture
async def sql(served: Served) -> AsyncIterator[asyncpg.Connection]:
    """A connection to the database, whose tables are empty; Brain has sent the deletions."""
    connection = await asyncpg.connect(served.database)
    for table in TABLES:
        await connection.execute(f"DELETE FROM {table}")
    await has_sent_so_far(served, connection, "/ws?channel=emptied")
    yield connection
    await connection.close()


@pytest.fixture
async def guarded_sql(guarded: Served, sql: asyncpg.Connection) -> asyncpg.Connection:
    """The same, once the guarded Brain has sent the deletions, too."""
    await has_sent_so_far(guarded, sql, f"/ws?cursor=&channel=emptied&token={token()}")
    return sql


async def has_sent_so_far(served: Served, connection: asyncpg.Connection, path: str) -> None:
    """Return once a Brain has sent every change so far."""
    async with served.brain.client(path) as client:
        await connection.execute("SELECT brain.publish('emptied', 'now', '{}')")
        while (await message(client))["type"] != "now":
            pass


@pytest.fixture(scope="session")
async def impatient(
    postgres: str, template: str, origin: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Served]:
    """A Brain with short heartbeats and client timeouts."""
    output = tmp_path_factory.mktemp("impatient") / "brain.log"
    async with new_database(postgres, template) as url:
        command = (sys.executable, "-m", "tests.seeds.impatient", "serve", "--port", "0")
        environment = {
            "BRAIN_DATABASE_URL": url,
            "BRAIN_SYSTEMS": "all",
            "BRAIN_ALLOWED_ORIGINS": origin,
            "BRAIN_HEARTBEAT_SECONDS": "0.4",
            **NO_GRACE,
        }
        async with running(command, output, environment) as process:
            port = int((await logged(output, READY, process))[1])
            yield Served(RunningBrain(process, port, output), url)
