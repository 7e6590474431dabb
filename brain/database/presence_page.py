"""Reads the users who are present, as pages of rows."""

from __future__ import annotations

import time

from brain.database.budget import concerning
from brain.database.memory import Memory, Reservation
from brain.database.reader_session import ReaderSession
from brain.database.table import pages
from brain.errors import CursorLost
from brain.message.comparison_keys import RowValues
from brain.message.cursor import Cursor
from brain.message.json_text import dumps
from brain.message.page import KeyedRow, Page, PageRequest, RowPlace
from brain.message.presence import presence_row
from brain.message.row import Row
from brain.message.snapshot import LEAST_BYTES_PER_SECOND, READ_SECONDS

PRESENT = """
    SELECT p.user_id AS data, p.status FROM brain.presence p
     WHERE p.status <> 'offline' AND {after} ORDER BY p.user_id
"""
ORDER = "users"


async def read_presence(
    session: ReaderSession,
    request: PageRequest,
    cursor: Cursor,
    memory: Memory,
    most_bytes: int,
    seconds: float,
) -> Page:
    """
    Return the users of all nodes who are not offline, at most `most_bytes` unless all are wanted.

    Raises `TooSlow`, `QueryFailed`, `NoMemory`, `SnapshotTooLarge`, and `CursorLost` if a table was
    read on the channel before.
    """
    after = request.after
    if after is not None and after.order != ORDER:
        raise CursorLost("the table is not watched any more")
    statement = PRESENT.format(after="true" if after is None else "p.user_id > $1")
    arguments = () if after is None else (after.text,)
    end_at = time.monotonic() + seconds
    reservation = Reservation(memory)
    rows: list[KeyedRow] = []
    try:
        with concerning(request, seconds):
            async with session.limited(seconds):
                async for part in pages(session.connection, end_at, statement, *arguments):
                    for user, status in part:
                        add(request, user, status, rows, reservation)
                        if is_full(request, rows, reservation, most_bytes):
                            end = RowPlace(user, ORDER)
                            return Page(tuple(rows), cursor, end, reservation.bytes, reservation)
    except BaseException:
        reservation.release()
        raise
    seconds_to_read = READ_SECONDS + reservation.bytes / LEAST_BYTES_PER_SECOND
    return Page(tuple(rows), cursor, None, reservation.bytes, reservation, seconds_to_read)


def add(
    request: PageRequest, user: str, status: str, rows: list[KeyedRow], reservation: Reservation
) -> None:
    """Add a user to the rows of a page, if the filter matches."""
    row = presence_row(user, status)
    if request.condition.verdict(RowValues(Row(row), ())) is True:
        rows.append((dumps([user]), row))
        reservation.take(row)


def is_full(
    request: PageRequest, rows: list[KeyedRow], reservation: Reservation, most_bytes: int
) -> bool:
    if request.limit is None:
        return False
    return len(rows) == request.limit or reservation.bytes > most_bytes
