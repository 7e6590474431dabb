"""The watched tables, and their problems."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import asyncpg
import orjson

from brain.database.connection import DATABASE_ERRORS, Queryable, explain
from brain.problems import Problems

CHECK_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Watch:
    """A watched table."""

    table: str
    channel: str
    columns: tuple[str, ...]
    timing: str
    problems: tuple[str, ...]
    """Why not every change is logged as configured, if so."""


async def watches(connection: Queryable) -> list[Watch]:
    """Return all watches, by channel."""
    records = await connection.fetch(
        """
        SELECT relation::regclass::text AS relation, channel, columns, timing, problems
          FROM brain.watches ORDER BY channel
        """
    )
    return [
        Watch(
            record["relation"],
            record["channel"],
            tuple(record["columns"]),
            record["timing"],
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
) -> None:
    """Log the changes of a table; the SQL function brain.watch documents the arguments."""
    await connection.execute(
        "SELECT brain.watch($1::text::regclass, $2, $3, $4::text::jsonb, $5, $6)",
        table,
        channel,
        list(columns),
        orjson.dumps(types).decode(),
        timing,
        replicated,
    )


async def unwatch(connection: Queryable, table: str) -> None:
    """Stop watching a table."""
    await connection.execute("SELECT brain.unwatch($1::text::regclass)", table)


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
