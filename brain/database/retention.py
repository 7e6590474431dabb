"""Removes old events from the log."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import asyncpg

from brain.database.connection import DATABASE_ERRORS, explain, noting_warnings
from brain.problems import Problems

PAUSE_SECONDS = 60.0


async def trim_log(
    pool: asyncpg.Pool,
    retention_seconds: float,
    problems: Problems | None = None,
    on_trim: Callable[[str], None] = lambda result: None,
) -> None:
    """
    Once a minute, for ever, remove events that are older than `retention_seconds`.

    `on_trim` is called each time, with "done" or "failed".
    """
    problems = problems or Problems()
    while True:
        await asyncio.sleep(PAUSE_SECONDS)
        try:
            warnings = await trim(pool, retention_seconds)
        except DATABASE_ERRORS as error:
            on_trim("failed")
            problems.report("retention", f"could not trim the log, trying again: {explain(error)}")
        else:
            on_trim("failed" if warnings else "done")
            if warnings:
                problems.report("retention", "; ".join(warnings))


async def trim(pool: asyncpg.Pool, retention_seconds: float) -> list[str]:
    """Remove old events; return the warnings of the steps that failed."""
    warnings: list[str] = []
    async with pool.acquire() as connection:
        with noting_warnings(connection, warnings.append):
            await connection.fetchval(
                "SELECT brain.trim(pg_catalog.make_interval(secs => $1))", retention_seconds
            )
    return warnings
