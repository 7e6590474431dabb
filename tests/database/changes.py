"""The events that the log has for given statements."""

from __future__ import annotations

from typing import Any, NamedTuple

import asyncpg

from brain.message.event import Event
from tests.database.log_reading import events_after, parsed, reading


class Change(NamedTuple):
    """The parts of an event that most tests compare."""

    operation: str
    key: list[Any] | None
    data: Any


async def changes(database: str, connection: asyncpg.Connection, *statements: str) -> list[Change]:
    """Return the logged changes of `statements`, each run in its own transaction."""
    return [
        Change(event.operation.value, parsed(event.key), parsed(event.data))
        for event in await logged_events(database, connection, *statements)
    ]


async def logged_events(
    database: str, connection: asyncpg.Connection, *statements: str
) -> list[Event]:
    """Return the logged events of `statements`, each run in its own transaction."""
    async with reading(database) as log:
        start = await log.tick()
        for statement in statements:
            await connection.execute(statement)
        return await events_after(log, start)


async def rung(database: str, connection: asyncpg.Connection, *statements: str) -> list[bool]:
    """Return for each of `statements`, each run in its own transaction, True if it notified."""
    notifications: list[str] = []
    sleeper = await asyncpg.connect(database)
    await sleeper.add_listener("brain", lambda *arguments: notifications.append(arguments[2]))
    await sleeper.execute("SELECT pg_advisory_lock_shared(5221, 2)")
    found = []
    for statement in statements:
        await connection.execute(statement)
        await sleeper.execute("SELECT 1")
        found.append(bool(notifications))
        notifications.clear()
    await sleeper.close()
    return found
