"""The database that publishing calls write to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path

from brain.database.connection import Queryable, connected
from brain.embedded.binaries import find_binaries
from brain.embedded.server import default_folder, running_url
from brain.errors import DatabaseUnreachable, EmbeddedServerError
from brain.settings import Settings


@asynccontextmanager
async def chosen(connection: Queryable | None) -> AsyncIterator[Queryable]:
    """Yield `connection`, or a new one to the configured database."""
    if connection is not None:
        yield connection
        return
    url = Settings().database_url or await asyncio.to_thread(embedded_url)
    if url is None:
        raise DatabaseUnreachable(
            "no database: set BRAIN_DATABASE_URL, pass a connection, or start `brain serve`"
        )
    async with connected(url) as own:
        yield own


def embedded_url() -> str | None:
    """Return the URL of Brain's embedded server; None if none runs."""
    try:
        folder = embedded_folder()
    except EmbeddedServerError:
        return None
    return running_url(folder)


@cache
def embedded_folder() -> Path:
    """Return the folder of the embedded server. It is remembered: to find it runs programs."""
    return default_folder(find_binaries().major)
