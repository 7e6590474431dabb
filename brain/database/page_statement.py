"""Makes the queries of pages, from parts that are asked for once as long as they hold."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg

from brain.database.log import LogConnection
from brain.database.row_conditions import condition_in_sql
from brain.errors import CursorLost
from brain.message.condition import Condition
from brain.message.page import PageRequest, RowPlace

TABLE = """
    SELECT coalesce(brain.reader_problem(w), brain.page_problem(w)) AS problem,
           brain.table_version(w) AS version, w.key_columns
      FROM brain.watched w WHERE w.channel = $1
"""
ORDER = """
    SELECT k.name, k.type, k.collation_id::bigint, k.equal, k.greater
      FROM brain.watched w, LATERAL brain.key_order(w) k WHERE w.channel = $1 ORDER BY k.number
"""
# What a part of a query depends on, besides the table.
ROWS = """
    SELECT brain.rows_query(w, $2::text::boolean, brain.place_expression(w))
      FROM brain.watched w WHERE w.channel = $1
"""
RULES = "SELECT brain.rows_condition(w, $2::text::jsonb) FROM brain.watched w WHERE w.channel = $1"
KEY = "SELECT brain.key_condition(w, $2) FROM brain.watched w WHERE w.channel = $1"

# brain.rows_query ends with WHERE.
PAGE = """
    SELECT place || ' ' || {expression}
      FROM ({rows} {conditions} ORDER BY {names} LIMIT {limit} OFFSET 0) r (data, place)
"""

# Of texts that are kept: about half a kilobyte each.
MOST_PARTS = 10_000


@dataclass(frozen=True, slots=True)
class KeyColumn:
    """A column of a primary key; names and operators are as in a query."""

    name: str
    type: str
    collation: int
    equal: str
    greater: str


@dataclass(frozen=True, slots=True)
class PageTable:
    """A watched table as it is now."""

    channel: str
    version: str
    key_columns: Sequence[str]


class PageStatements:
    """
    Makes the queries of pages.

    It takes PostgreSQL some milliseconds to write a part, longer than to read most pages.
    """

    def __init__(self) -> None:
        self._parts: dict[tuple[Hashable, ...], Any] = {}
        """By the channel, the version of its table, and what the part is."""

    async def table(self, connection: LogConnection, channel: str) -> PageTable | None:
        """
        Return the table on a channel; None if there is none.

        Raises `InsufficientPrivilegeError` with a sentence if it cannot be read by pages.
        """
        record = await connection.fetchrow(TABLE, channel)
        if record is None:
            return None
        if record["problem"] is not None:
            raise asyncpg.InsufficientPrivilegeError(record["problem"])
        return PageTable(channel, record["version"], record["key_columns"])

    async def statement(
        self,
        connection: LogConnection,
        table: PageTable,
        request: PageRequest,
        expression: str,
        *,
        careful: bool,
    ) -> tuple[str, str]:
        """
        Return the query of a page, and how its rows are ordered: `RowPlace.order`.

        It returns texts: the place of a row, a space, and the row as `expression` shows `data`.

        Raises `FilterRefused` if the condition does not fit the table any more, and `CursorLost` if
        the table is ordered in another way than it was when the page before was read.
        """
        columns = await self._order(connection, table)
        order = " ".join(f"{one.name} {one.type} {one.collation}" for one in columns)
        if request.after is not None and request.after.order != order:
            raise CursorLost("the primary key has changed")
        rows = await self._part(connection, table, ROWS, str(careful))
        conditions = [
            await self._part(connection, table, RULES, request.allowed),
            await self._filter(connection, table, request.condition),
        ]
        if request.key is not None:
            conditions.append(await self._part(connection, table, KEY, request.key))
        if request.after is not None:
            conditions.append(beyond(columns, request.after))
        statement = PAGE.format(
            expression=expression,
            rows=rows,
            conditions=" AND ".join(conditions),
            names=", ".join(f"r.{column.name}" for column in columns),
            limit="ALL" if request.limit is None else request.limit,
        )
        return statement, order

    def forget(self, channel: str) -> None:
        """Ask for all parts of a channel again, after a query has failed."""
        self._parts = {key: part for key, part in self._parts.items() if key[0] != channel}

    async def _filter(
        self, connection: LogConnection, table: PageTable, condition: Condition
    ) -> str:
        key = table.channel, table.version, condition
        if key not in self._parts:
            self._keep(key, await condition_in_sql(connection, table.channel, condition))
        found: str = self._parts[key]
        return found

    async def _order(self, connection: LogConnection, table: PageTable) -> tuple[KeyColumn, ...]:
        key = table.channel, table.version, ORDER
        if key not in self._parts:
            records = await connection.fetch(ORDER, table.channel)
            self._keep(key, tuple(KeyColumn(*record) for record in records))
        found: tuple[KeyColumn, ...] = self._parts[key]
        return found

    async def _part(
        self, connection: LogConnection, table: PageTable, query: str, argument: str | None
    ) -> str:
        key = table.channel, table.version, query, argument
        if key not in self._parts:
            self._keep(key, await connection.fetchval(query, table.channel, argument))
        found: str = self._parts[key]
        return found

    def _keep(self, key: tuple[Hashable, ...], part: object) -> None:
        if len(self._parts) >= MOST_PARTS:
            del self._parts[next(iter(self._parts))]
        self._parts[key] = part


def beyond(columns: Sequence[KeyColumn], place: RowPlace) -> str:
    """Return the condition that the row `r` comes after a place."""
    values = [
        f"brain.text_in_place('\\x{text}'::pg_catalog.bytea)::{column.type}"
        for column, text in zip(columns, place.text.split("."), strict=True)
    ]
    names = [f"r.{column.name}" for column in columns]
    if len({column.greater for column in columns}) == 1:
        # PostgreSQL finds the beginning of such a comparison in the index.
        return f"ROW({', '.join(names)}) {columns[0].greater} ROW({', '.join(values)})"
    alternatives = []
    for number, column in enumerate(columns):
        parts = [
            f"{name} {before.equal} {value}"
            for name, before, value in zip(names, columns[:number], values, strict=False)
        ]
        parts.append(f"{names[number]} {column.greater} {values[number]}")
        alternatives.append(f"({' AND '.join(parts)})")
    return f"({' OR '.join(alternatives)})"
