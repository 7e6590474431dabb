"""The watched tables, and their problems."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

import asyncpg
import orjson

from brain.database.budget import undone
from brain.database.connection import (
    DATABASE_ERRORS,
    Queryable,
    explain,
    first_line,
    is_lost_link,
)
from brain.database.log import LogConnection
from brain.database.watch_follower import WatchFollower
from brain.errors import UsageError
from brain.message.column_kinds import ColumnKind, ColumnKinds, refusal
from brain.message.matching import Topic
from brain.problems import Problems

CHECK_SECONDS = 60.0

TABLE = """
    SELECT format('%I.%I', n.nspname, c.relname) AS name, c.relname, ARRAY(
               SELECT a.attname FROM pg_attribute a
                WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                  AND a.attgenerated <> 'v' ORDER BY a.attnum)::text[] AS columns
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.oid = $1
"""
# Every other name in it has its schema: the search path is not Brain's.
FIND = "SELECT $1::pg_catalog.text::pg_catalog.regclass::pg_catalog.oid"
# Of the same name but for the schema, capitals and quotes.
SIMILAR_TABLES = """
    SELECT format('%I.%I', n.nspname, c.relname) AS name
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname <> 'brain'
       AND lower(c.relname) = lower(replace(regexp_replace($1, '^.*\\.', ''), '"', ''))
     ORDER BY 1
"""

# The watches of tables that were dropped, if one of them had this name.
DROPPED = """
    WITH dropped AS (
        SELECT w.table_name FROM brain.watched w
         WHERE NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = w.relation))
    SELECT table_name FROM dropped
     WHERE EXISTS (SELECT FROM dropped d
                    WHERE parse_ident($1) IN (parse_ident(d.table_name),
                                              (parse_ident(d.table_name))[2:]))
     ORDER BY table_name
"""


@dataclass(frozen=True, slots=True)
class Watch:
    """A watched table."""

    table: str
    channel: str
    columns: tuple[str, ...]
    types: Mapping[str, str]
    """The types of its messages by operation, where the watch names them."""
    timing: str
    is_replicated: bool
    rules: Mapping[str, str]
    """By column the claim that decides who may see a row; empty: no row rules."""
    problems: tuple[str, ...]
    """Why not every change is logged as configured, if so."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table that may be watched."""

    name: str
    """With its schema, as SQL reads it."""
    plain_name: str
    """Without schema and quotes."""
    columns: tuple[str, ...]
    """Those that triggers see."""


async def watches(connection: Queryable) -> list[Watch]:
    """Return all watches, by channel."""
    records = await connection.fetch(
        """
        SELECT CASE WHEN EXISTS (SELECT FROM pg_class c WHERE c.oid = v.relation)
                    THEN v.relation::text ELSE w.table_name END AS relation,
               v.channel, v.columns, v.types, v.timing, v.replicated, v.rules, v.problems
          FROM brain.watches v JOIN brain.watched w USING (channel) ORDER BY channel
        """
    )
    return [
        Watch(
            record["relation"],
            record["channel"],
            tuple(record["columns"]),
            orjson.loads(record["types"]),
            record["timing"],
            record["replicated"],
            orjson.loads(record["rules"]),
            tuple(record["problems"]),
        )
        for record in records
    ]


async def watch(
    connection: Queryable,
    table: str,
    channel: str,
    columns: Sequence[str],
    *,
    types: Mapping[str, str],
    timing: str | None,
    replicated: bool,
    column_bytes: int | None = None,
    row_bytes: int | None = None,
    rules: Mapping[str, str] | None = None,
    exempt: Mapping[str, Sequence[str]] | None = None,
    row_security: str | None = None,
) -> None:
    """Log the changes of a table; the SQL function brain.watch documents the arguments."""
    options = {
        "column_bytes": column_bytes,
        "row_bytes": row_bytes,
        "rules": rules,
        "exempt": exempt,
        "row_security": row_security,
    }
    given = {
        name: orjson.dumps(value).decode() if isinstance(value, Mapping) else value
        for name, value in options.items()
        if value is not None
    }
    named = "".join(
        f", {name} => ${number}{'::text::jsonb' if name in ('rules', 'exempt') else ''}"
        for number, name in enumerate(given, 7)
    )
    await connection.execute(
        f"SELECT brain.watch($1::text::regclass, $2, $3, $4::text::jsonb, $5, $6{named})",
        table,
        channel,
        list(columns),
        orjson.dumps(types).decode(),
        timing,
        replicated,
        *given.values(),
    )


async def restrict(
    connection: Queryable,
    table: str,
    rules: Mapping[str, str],
    exempt: Mapping[str, Sequence[str]],
) -> None:
    """Set the row rules of a watched table; the SQL function brain.restrict documents them."""
    await connection.execute(
        "SELECT brain.restrict($1::text::regclass, $2::text::jsonb, $3::text::jsonb)",
        table,
        orjson.dumps(rules).decode(),
        orjson.dumps(exempt).decode(),
    )


async def find_table(connection: LogConnection, name: str) -> Table:
    """
    Return the table of a name, which is read as psql would for the same role.

    Raises `UsageError`, which names the tables that may be meant.
    """
    try:
        async with undone(connection):
            await connection.execute("RESET search_path")
            oid = await connection.fetchval(FIND, name)
        row = await connection.fetchrow(TABLE, oid)
    except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError) as error:
        database = await connection.fetchval("SELECT current_database()")
        similar = [row["name"] for row in await connection.fetch(SIMILAR_TABLES, name)]
        meant = f"; there is {', '.join(similar)}" if similar else ""
        raise UsageError(
            f"there is no table {name} in database {database}: {first_line(error)}{meant}"
        ) from error
    except asyncpg.InsufficientPrivilegeError as error:
        schema = re.fullmatch(r"permission denied for schema (.*)", first_line(error))
        if schema is None:
            raise
        role = await connection.fetchval("SELECT quote_ident(current_user)")
        raise UsageError(
            f"{first_line(error)}: its owner can allow it: GRANT USAGE ON SCHEMA {schema[1]}"
            f" TO {role}"
        ) from error
    if row is None:  # a number
        raise UsageError(f"there is no table {name}")
    return Table(row["name"], row["relname"], tuple(row["columns"]))


async def unwatch(connection: Queryable, table: str) -> None:
    """Stop watching a table."""
    await connection.execute("SELECT brain.unwatch($1::text::regclass)", table)


async def unwatch_dropped(connection: Queryable, table: str) -> list[str]:
    """
    Stop watching all tables that were dropped, if one of them had that name.

    Return their names; none if none had that one.
    """
    names = [row["table_name"] for row in await connection.fetch(DROPPED, table)]
    if names:
        await connection.execute("SELECT brain.unwatch_dropped()")
    return names


class WatchedColumns(WatchFollower):
    """
    Knows the columns of each watched table, by which filters are refused.

    Before a filter is refused, and for a channel that is not known, they are read again: the filter
    may come before the news of its watch.
    """

    def __init__(self, timeout_seconds: float, problems: Problems | None = None) -> None:
        super().__init__("watches", timeout_seconds, problems)
        self._kinds: ColumnKinds = {}

    async def refusal(self, topics: Iterable[Topic]) -> str | None:
        """Return why a filter can never match; None if there is no reason to refuse it."""
        filtered = [topic for topic in topics if topic.where]
        reason = refusal(filtered, self._kinds)
        if reason is not None or any(topic.channel not in self._kinds for topic in filtered):
            with suppress(*DATABASE_ERRORS):
                await self._read()
                reason = refusal(filtered, self._kinds)
        return reason

    def columns_of(self, channel: str) -> list[str] | None:
        """Return the watched columns of the table on a channel; None: no table is known."""
        columns = self._kinds.get(channel)
        return None if columns is None else [*columns]

    async def _replace(self, pool: asyncpg.Pool) -> None:
        kinds: dict[str, dict[str, ColumnKind]] = {}
        rows = await pool.fetch("SELECT channel, name, kind FROM brain.watched_columns()")
        for row in rows:
            kinds.setdefault(row["channel"], {})[row["name"]] = row["kind"]
        self._kinds = kinds


async def warn_of_problems(pool: asyncpg.Pool, problems: Problems | None = None) -> None:
    """Once a minute, for ever, report the problems of watched tables; new ones are logged."""
    problems = problems or Problems()
    known: dict[str, tuple[str, ...]] = {}
    while True:
        try:
            found = {w.channel: w.problems for w in await watches(pool) if w.problems}
        except DATABASE_ERRORS as error:
            problems.report(
                "watches", f"could not check the watched tables, trying again: {explain(error)}"
            )
        else:
            for channel, texts in found.items():
                is_known = known.get(channel) == texts
                problems.report(f"watch {channel}", "; ".join(texts), is_known=is_known)
            known = found
        await asyncio.sleep(CHECK_SECONDS)


async def report_to_watches(pool: asyncpg.Pool, problems: Problems) -> None:
    """Once a minute, for ever, store what went wrong with single channels, for brain.watches."""
    stored_until = datetime.now(UTC)
    while True:
        await asyncio.sleep(CHECK_SECONDS)
        found = [p for p in problems.recent() if p.channel is not None and p.at > stored_until]
        for problem in reversed(found):
            try:
                await pool.execute(
                    "SELECT brain.report_problem($1, $2)", problem.channel, problem.text
                )
            except DATABASE_ERRORS as error:
                problems.report("watches", f"a problem cannot be stored: {explain(error)}")
                if is_lost_link(error):
                    break
            stored_until = problem.at
