"""Inserts tasks for tests."""

from __future__ import annotations

import asyncpg


async def insert(connection: asyncpg.Connection, *ids: str) -> None:
    """Insert tasks, each in a transaction of its own unless the connection is in one."""
    for id in ids:
        await connection.execute("INSERT INTO tasks (id) VALUES ($1)", id)
