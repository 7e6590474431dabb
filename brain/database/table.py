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
    limits,
    milliseconds,
)
from brain.database.connection import is_lost_link
from brain.database.log import LogConnection, one_line
from brain.database.memory import Reservation

# A page has about so many bytes, as far as the rows before it tell, and at most so many rows.
PAGE_BYTES = 1024 * 1024
PAGE_ROWS = 500
FIRST_PAGE_ROWS = 10

STATEMENT = """
    SELECT brain.select_statement(w, $2, $3::text::jsonb) FROM brain.watched w WHERE w.channel = $1
"""
# One text per value, as in events.
ONE_TEXT_PER_VALUE = """
    SET LOCAL search_path = pg_catalog, pg_temp; SET LOCAL extra_float_digits = 1;
    SET LOCAL bytea_output = hex; SET LOCAL datestyle = 'ISO, MDY';
    SET LOCAL intervalstyle = postgres; SET LOCAL timezone = 'UTC'; SET LOCAL lc_monetary = 'C';
    SET LOCAL quote_all_identifiers = off
"""
# Of more bytes than a snapshot may take, nothing is sent.
ROWS = """
    SELECT CASE WHEN bytes <= {bytes} THEN data END AS data, bytes > {bytes} AS is_too_large
      FROM (SELECT data, sum(octet_length(data)) OVER (ROWS UNBOUNDED PRECEDING) AS bytes
              FROM (SELECT {text} AS data FROM ({statement}) r (data) OFFSET 0) rendered) summed
"""
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
                f"LOCK TABLE {table} IN ACCESS SHARE MODE"
            )
    except asyncpg.LockNotAvailableError:
        raise Locked(channel) from None
    except asyncpg.InsufficientPrivilegeError:
        pass  # there may be a right to read some columns, if not to lock the table
    except asyncpg.UndefinedTableError as error:
        raise QueryFailed(channel) from error


async def read_rows(
    connection: LogConnection,
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
        await connection.execute(f"{limits(seconds)};{ONE_TEXT_PER_VALUE}")
        for careful, expression in WAYS:
            try:
                async with connection.transaction():
                    return await texts(
                        connection, (channel, careful, allowed), expression, end_at, reservation
                    )
            except (asyncpg.PostgresError, UnicodeDecodeError) as error:
                if isinstance(error, OF_THE_TABLE) or is_lost_link(error):
                    raise
                reservation.release(but=taken)
                failure = error
        raise failure


async def texts(
    connection: LogConnection,
    arguments: tuple[str, bool, str | None],
    expression: str,
    end_at: float,
    reservation: Reservation,
) -> list[str]:
    """`arguments` are those of `STATEMENT`."""
    statement = await connection.fetchval(STATEMENT, *arguments)
    if statement is None:
        return []  # it is not watched any more
    query = ROWS.format(bytes=reservation.most_bytes, text=expression, statement=statement)
    rows: list[str] = []
    async for page in pages(connection, query, end_at):
        for record in page:
            if record["is_too_large"]:
                raise reservation.too_large()
            rows.append(one_line(record["data"]))
            reservation.take(rows[-1])
    return rows


async def pages(
    connection: LogConnection, query: str, end_at: float
) -> AsyncIterator[list[asyncpg.Record]]:
    """Yield the result of a query of `ROWS`, which the server ends at a time, page by page."""
    cursor = await connection.cursor(query)
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
