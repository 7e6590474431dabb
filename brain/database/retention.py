"""Removes old events from the log."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg

from brain.database.connection import DATABASE_ERRORS, explain
from brain.problems import Problems

PAUSE_SECONDS = 60.0


async def trim_log(
    pool: asyncpg.Pool, retention_seconds: float, problems: Problems | None = None
) -> None:
    """Once a minute, for ever, remove events that are older than `retention_seconds`."""
    problems = problems or Problems()
    while True:
        await asyncio.sleep(PAUSE_SECONDS)
        try:
            warnings = await trim(pool, retention_seconds)
        except DATABASE_ERRORS as error:
            problems.report("retention", f"could not trim the log, trying again: {explain(error)}")
        else:
            if warnings:
                problems.report("retention", "; ".join(warnings))


async def trim(pool: asyncpg.Pool, retention_seconds: float) -> list[str]:
    """Remove old events; return the warnings of the steps that failed."""
    warnings: list[str] = []

    def note(_: Any, message: asyncpg.PostgresLogMessage) -> None:
        if message.severity_en == "WARNING":
            warnings.append(str(message.message))

    async with pool.acquire() as connection:
        connection.add_log_listener(note)
        try:
            await connection.fetchval(
                "SELECT brain.trim(pg_catalog.make_interval(secs => $1))", retention_seconds
            )
        finally:
            connection.remove_log_listener(note)
    return warnings
