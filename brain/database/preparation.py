"""What is done with a database before it is served."""

from __future__ import annotations

from collections.abc import Sequence

from brain.database import migrations
from brain.database.connection import connected, require_own_session
from brain.database.log import Log
from brain.database.schema_files import Schema
from brain.settings import Settings


async def prepare_database(url: str, settings: Settings, schemas: Sequence[Schema]) -> None:
    """
    Check that a database can serve, and migrate it, unless the settings say that it is migrated.

    Raises `DatabaseError` and `MigrationError`.
    """
    await require_own_session(url)
    if settings.migrate:
        await migrations.migrate(url, schemas, spares_nodes=True)
    else:
        await migrations.require_current(url, schemas)
    async with connected(url) as connection:
        # A role without the rights of the listener would be refused again and again in the
        # background: it fails here instead.
        await Log(connection, settings.database_timeout_seconds).tick()
