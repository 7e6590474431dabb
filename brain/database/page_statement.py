"""Makes the queries of pages, from parts that are asked for once as long as they hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
FILTER = "filter"
KEY = "SELECT brain.key_condition(w, $2) FROM brain.watched w WHERE w.channel = $1"

# brain.rows_query ends with WHERE.
PAGE = """
    SELECT place || ' ' || {expression}
      FROM ({rows} {conditions} ORDER BY {names} LIMIT {limit} OFFSET 0) r (data, place)
"""

# Of the parts that are kept and of what they are made of: a filter with many values has 100 KiB.
MOST_CHARACTERS = 8 * 1024 * 1024

Part = str | tuple["KeyColumn", ...]
PartKey = tuple[str, str, str, str | None]
"""The channel, the version of its table, what the part is, and what it is made of."""


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
        self._parts: dict[PartKey, Part] = {}
        self.held_characters = 0

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
        for key in [key for key in self._parts if key[0] == channel]:
            self._drop(key)

    async def _filter(
        self, connection: LogConnection, table: PageTable, condition: Condition
    ) -> str:
        key = table.channel, table.version, FILTER, condition.json
        found = self._parts.get(key)
        if found is None:
            found = await condition_in_sql(connection, table.channel, condition)
            self._keep(key, found)
        assert isinstance(found, str)
        return found

    async def _order(self, connection: LogConnection, table: PageTable) -> tuple[KeyColumn, ...]:
        key = table.channel, table.version, ORDER, None
        found = self._parts.get(key)
        if found is None:
            records = await connection.fetch(ORDER, table.channel)
            found = tuple(KeyColumn(*record) for record in records)
            self._keep(key, found)
        assert isinstance(found, tuple)
        return found

    async def _part(
        self, connection: LogConnection, table: PageTable, query: str, argument: str | None
    ) -> str:
        key = table.channel, table.version, query, argument
        found = self._parts.get(key)
        if found is None:
            found = await connection.fetchval(query, table.channel, argument)
            self._keep(key, found)
        assert isinstance(found, str)
        return found

    def _keep(self, key: PartKey, part: Part) -> None:
        self._drop(key)
        self._parts[key] = part
        self.held_characters += characters(key, part)
        while self.held_characters > MOST_CHARACTERS:
            self._drop(next(iter(self._parts)))

    def _drop(self, key: PartKey) -> None:
        part = self._parts.pop(key, None)
        if part is not None:
            self.held_characters -= characters(key, part)


def characters(key: PartKey, part: Part) -> int:
    """Return about how many characters a part and its key have."""
    return sum(len(str(one)) for one in (*key, part))


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
