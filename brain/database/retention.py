"""Keeps the log from growing for ever."""

from __future__ import annotations

import asyncio
import logging

import asyncpg

from brain.database.connection import DISCONNECTIONS, told

PAUSE_SECONDS = 60.0

logger = logging.getLogger(__name__)


async def forget_old_events(pool: asyncpg.Pool, retention_seconds: float) -> None:
    """Once a minute, for ever, empty what has become older than `retention_seconds`."""
    while True:
        await asyncio.sleep(PAUSE_SECONDS)
        try:
            await pool.fetchval(
                "SELECT brain.forget(pg_catalog.make_interval(secs => $1))", retention_seconds
            )
        except DISCONNECTIONS as error:
            logger.warning("could not forget old events, trying again: %s", told(error))
