"""Removes old events from the log."""

from __future__ import annotations

import asyncio
import logging

import asyncpg

from brain.database.connection import DISCONNECTIONS, first_line

PAUSE_SECONDS = 60.0

logger = logging.getLogger(__name__)


async def trim_log(pool: asyncpg.Pool, retention_seconds: float) -> None:
    """Once a minute, for ever, remove events that are older than `retention_seconds`."""
    while True:
        await asyncio.sleep(PAUSE_SECONDS)
        try:
            await pool.fetchval(
                "SELECT brain.trim(pg_catalog.make_interval(secs => $1))", retention_seconds
            )
        except DISCONNECTIONS as error:
            logger.warning("could not trim the log, trying again: %s", first_line(error))
