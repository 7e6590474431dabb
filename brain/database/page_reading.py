"""Reads pages of a watched table, in a transaction of the caller."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import asyncpg

from brain.database.budget import GRACE_SECONDS, concerning, milliseconds, undone
from brain.database.connection import DATABASE_ERRORS, is_lost_link
from brain.database.log import one_line
from brain.database.memory import Memory, Reservation
from brain.database.page_statement import PageStatements, PageTable
from brain.database.presence_page import read_presence
from brain.database.reader_session import ReaderSession
from brain.database.table import OF_THE_TABLE, ROWS, WAYS, pages
from brain.errors import BrainError, CursorLost
from brain.message.cursor import Cursor
from brain.message.json_text import key_text
from brain.message.page import KeyedRow, Page, PageRequest, RowPlace
from brain.message.presence import PRESENCE_CHANNEL
from brain.message.row import key_of
from brain.message.snapshot import LEAST_BYTES_PER_SECOND, READ_SECONDS

# A page ends with the row by which it has more.
PAGE_BYTES = 64 * 1024

TOGETHER = """
    SELECT q.number, r.data
      FROM unnest($1::text[]) WITH ORDINALITY q (statement, number)
     CROSS JOIN LATERAL pg_temp.brain_read(q.statement, NULL, $2) r (data)
"""


class PageReading:
    """Reads pages in one transaction, at a place in the log."""

    def __init__(
        self,
        session: ReaderSession,
        statements: PageStatements,
        table: PageTable | None,
        cursor: Cursor,
        memory: Memory,
    ) -> None:
        """`table`: None if no table is watched on the channel, which has no rows then."""
        self._session = session
        self._statements = statements
        self._table = table
        self._cursor = cursor
        self._memory = memory
        self._page_bytes = min(PAGE_BYTES, memory.most_bytes // 2)

    async def read(self, request: PageRequest, seconds: float) -> Page:
        """
        Return a page, read in each of the `WAYS` until one succeeds.

        Raises `TooSlow`, `QueryFailed`, `NoMemory`, `SnapshotTooLarge`, `FilterRefused`, and
        `CursorLost` if the page cannot follow the one before.
        """
        if self._table is None:
            return await self._without_table(request, seconds)
        end_at = time.monotonic() + seconds
        with concerning(request, seconds):
            for careful, expression in WAYS:
                try:
                    async with self._session.limited(seconds), undone(self._session.connection):
                        statement, order = await self._statements.statement(
                            self._session.connection,
                            self._table,
                            request,
                            expression,
                            careful=careful,
                        )
                        with self._session.leaving():
                            return await self._page(request, statement, order, end_at)
                except (asyncpg.PostgresError, UnicodeDecodeError) as error:
                    if isinstance(error, OF_THE_TABLE) or is_lost_link(error):
                        raise
                    self._statements.forget(request.channel)
                    failure = error
            raise failure

    async def read_together(
        self, requests: Sequence[PageRequest], seconds: float
    ) -> Mapping[PageRequest, Page]:
        """
        Return some pages, read by one query as most tables can be; none if that fails.

        Raises `NoMemory`.
        """
        if self._table is None:
            return {}
        connection = self._session.connection
        careful, expression = WAYS[0]
        try:
            async with self._session.limited(seconds), undone(connection):
                made = [
                    await self._statements.statement(
                        connection, self._table, request, expression, careful=careful
                    )
                    for request in requests
                ]
                with self._session.leaving():
                    statements = [statement for statement, _ in made]
                    records = await connection.fetch(
                        TOGETHER, statements, self._page_bytes, timeout=seconds + GRACE_SECONDS
                    )
        except (*DATABASE_ERRORS, BrainError):
            return {}
        texts: list[list[str]] = [[] for _ in requests]
        for record in records:
            texts[record["number"] - 1].append(record["data"])
        return {
            request: self._page_of(request, found, order)
            for request, found, (_, order) in zip(requests, texts, made, strict=True)
        }

    async def _without_table(self, request: PageRequest, seconds: float) -> Page:
        if request.channel == PRESENCE_CHANNEL:
            return await read_presence(
                self._session, request, self._cursor, self._memory, self._page_bytes, seconds
            )
        if request.after is not None:
            raise CursorLost("the table is not watched any more")
        return Page((), self._cursor, None)

    async def _page(self, request: PageRequest, statement: str, order: str, end_at: float) -> Page:
        connection = self._session.connection
        left = end_at - time.monotonic()
        if request.limit is not None:
            await connection.execute(f"SET LOCAL statement_timeout = {milliseconds(left)}")
            records = await connection.fetch(
                ROWS, statement, self._page_bytes, timeout=left + GRACE_SECONDS
            )
            return self._page_of(request, [record["data"] for record in records], order)
        reservation = Reservation(self._memory)
        rows: list[KeyedRow] = []
        most = self._memory.most_bytes
        try:
            async for part in pages(connection, end_at, ROWS, statement, most):
                for record in part:
                    self._add(request, record["data"], rows, reservation)
        except BaseException:
            reservation.release()
            raise
        seconds = READ_SECONDS + reservation.bytes / LEAST_BYTES_PER_SECOND
        return Page(tuple(rows), self._cursor, None, reservation.bytes, reservation, seconds)

    def _page_of(self, request: PageRequest, texts: Sequence[str], order: str) -> Page:
        reservation = Reservation(self._memory)
        rows: list[KeyedRow] = []
        try:
            for text in texts:
                self._add(request, text, rows, reservation)
        except BaseException:
            reservation.release()
            raise
        end = None
        # In the encoding of the database, they may have up to twice as many bytes.
        is_cut = sum(len(text.encode()) for text in texts) > self._page_bytes // 2
        if texts and (is_cut or len(texts) == request.limit):
            end = RowPlace(texts[-1].partition(" ")[0], order)
        return Page(tuple(rows), self._cursor, end, reservation.bytes, reservation)

    def _add(
        self,
        request: PageRequest,
        text: str,
        rows: list[KeyedRow],
        reservation: Reservation,
    ) -> None:
        assert self._table is not None
        row = one_line(text.partition(" ")[2])
        key = key_of(row, self._table.key_columns)
        if request.key is None or request.key == key_text(key):
            rows.append((key, row))
            reservation.take(row)
