"""Locks a watched table, and reads its rows, in a transaction of the caller."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import asyncpg

from brain.database.budget import (
    GRACE_SECONDS,
    TRY_LOCK_SECONDS,
    Locked,
    QueryFailed,
    concerning,
    milliseconds,
    undone,
)
from brain.database.connection import is_lost_link
from brain.database.log import LogConnection, one_line
from brain.database.memory import Reservation
from brain.database.reader_session import ReaderSession

# A page has about so many bytes, as far as the rows before it tell, and at most so many rows.
PAGE_BYTES = 1024 * 1024
PAGE_ROWS = 500
FIRST_PAGE_ROWS = 10

STATEMENT = """
    SELECT format('SELECT %s FROM (%s OFFSET 0) r (data)', $4::text,
                  brain.select_statement(w, $2, $3::text::jsonb)) AS statement,
           brain.reader_problem(w) AS problem
      FROM brain.watched w WHERE w.channel = $1
"""
# What runs here has its rights and nothing else of the session.
ROWS = "SELECT data FROM pg_temp.brain_read($1, NULL, $2) r (data)"
# How the columns of a row are read, and how its text: each for what the one before cannot read.
WAYS = ((False, "data"), (False, "brain.repaired(data)"), (True, "brain.repaired(data)"))
# What is no fault of a value in the table.
OF_THE_TABLE = (
    asyncpg.QueryCanceledError,
    asyncpg.LockNotAvailableError,
    asyncpg.UndefinedTableError,
    asyncpg.InsufficientPrivilegeError,
)


async def lock(connection: LogConnection, channel: str, table: str | None) -> None:
    """Lock a table as reading does. Raises `Locked`, and `QueryFailed` if it was dropped."""
    if table is None:
        raise QueryFailed(channel) from asyncpg.UndefinedTableError("the table was dropped")
    try:
        async with connection.transaction():
            await connection.execute(
                f"SET LOCAL lock_timeout = {milliseconds(TRY_LOCK_SECONDS)};"
                # To parse is to lock, and needs no right on the table. Nothing of it is run.
                f"PREPARE brain_lock AS SELECT FROM {table}; DEALLOCATE brain_lock"
            )
    except asyncpg.LockNotAvailableError:
        raise Locked(channel) from None
    except asyncpg.InsufficientPrivilegeError:
        pass  # there is no right to use its schema
    except asyncpg.UndefinedTableError as error:
        raise QueryFailed(channel) from error


async def read_rows(
    session: ReaderSession,
    channel: str,
    seconds: float,
    reservation: Reservation,
    allowed: str | None = None,
) -> list[str]:
    """
    Return the rows of the table on a channel, as JSON; of one with row rules, those `allowed`.

    Texts that UTF-8 does not have are repaired, and values that cannot be shown are left out.

    Raises `TooSlow`, `QueryFailed`, `NoMemory` and `SnapshotTooLarge`.
    """
    end_at = time.monotonic() + seconds
    taken = reservation.bytes
    with concerning(channel, seconds):
        for careful, expression in WAYS:
            try:
                async with session.limited(seconds), undone(session.connection):
                    arguments = (channel, careful, allowed, expression)
                    with session.leaving():
                        return await texts(session.connection, arguments, end_at, reservation)
            except (asyncpg.PostgresError, UnicodeDecodeError) as error:
                if isinstance(error, OF_THE_TABLE) or is_lost_link(error):
                    raise
                reservation.release(but=taken)
                failure = error
        raise failure


async def texts(
    connection: LogConnection,
    arguments: tuple[str, bool, str | None, str],
    end_at: float,
    reservation: Reservation,
) -> list[str]:
    """`arguments` are those of `STATEMENT`."""
    watch = await connection.fetchrow(STATEMENT, *arguments)
    if watch is None:
        return []  # it is not watched any more
    if watch["problem"] is not None:
        raise asyncpg.InsufficientPrivilegeError(watch["problem"])
    rows: list[str] = []
    most = reservation.most_bytes
    left = most
    async for page in pages(connection, end_at, ROWS, watch["statement"], most):
        for record in page:
            left -= len(record["data"].encode())
            if left < 0:
                raise reservation.too_large()
            rows.append(one_line(record["data"]))
            reservation.take(rows[-1])
    return rows


async def pages(
    connection: LogConnection, end_at: float, query: str, *arguments: object
) -> AsyncIterator[list[asyncpg.Record]]:
    """Yield the result of a query, which the server ends at a time, page by page."""
    cursor = await connection.cursor(query, *arguments)
    size = FIRST_PAGE_ROWS
    page: list[asyncpg.Record] | None = None
    while page is None or len(page) == size:
        left = end_at - time.monotonic()
        if left <= 0:
            raise TimeoutError
        if page is not None:
            bytes_per_row = sum(len(record["data"] or "") for record in page) / size
            size = max(1, min(PAGE_ROWS, int(PAGE_BYTES / (bytes_per_row + 1))))
        await connection.execute(f"SET LOCAL statement_timeout = {milliseconds(left)}")
        page = await cursor.fetch(size, timeout=left + GRACE_SECONDS)
        yield page
