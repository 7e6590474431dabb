"""Reading the log in tests: everything after a cursor, and the JSON in it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from brain.database.budget import PINNED, undone
from brain.database.connection import connected
from brain.database.log import Log
from brain.database.table import ROWS, STATEMENT
from brain.message.cursor import Cursor
from brain.message.event import Event


@asynccontextmanager
async def reading(url: str) -> AsyncIterator[Log]:
    async with connected(url) as connection:
        yield Log(connection, timeout_seconds=10)


async def batches_after(log: Log, cursor: Cursor) -> list[tuple[Event, ...]]:
    """Cut a tick, and return the events from `cursor` to its end, a tuple per read."""
    newest = await log.tick()
    batches = []
    while cursor != newest:
        batch = await log.after(cursor)
        batches.append(batch.events)
        cursor = batch.cursor
    return batches


async def events_after(log: Log, cursor: Cursor) -> list[Event]:
    return [event for events in await batches_after(log, cursor) for event in events]


def parsed(text: str | None) -> Any:
    """Return what a JSON text of the log stands for; None where there is none."""
    return None if text is None else json.loads(text)


def keys(events: Iterable[Event]) -> list[Any]:
    """Return the values of the primary key in each event."""
    return [parsed(event.key) for event in events]


async def rows_of(connection: asyncpg.Connection, channel: str) -> list[str]:
    """Return the rows of the table on a channel as a snapshot reads them, in any session."""
    await connection.execute("SELECT brain.open_reader()")
    async with undone(connection):
        await connection.execute(PINNED)
        statement = await connection.fetchval(STATEMENT, channel, False, None, "data")
        return [record[0] for record in await connection.fetch(ROWS, statement, 2**30)]
