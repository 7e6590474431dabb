"""The database that publishing calls write to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from brain.database.connection import Queryable, connected
from brain.embedded.binaries import find_binaries
from brain.embedded.server import default_folder, running_url
from brain.errors import DatabaseUnreachable
from brain.settings import Settings


@asynccontextmanager
async def chosen(connection: Queryable | None) -> AsyncIterator[Queryable]:
    """Yield `connection`, or a new one to the configured database."""
    if connection is not None:
        yield connection
        return
    url = Settings().database_url or running_url(default_folder(find_binaries().major))
    if url is None:
        raise DatabaseUnreachable(
            "no database: set BRAIN_DATABASE_URL, pass a connection, or start `brain serve`"
        )
    async with connected(url) as own:
        yield own
