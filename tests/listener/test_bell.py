from __future__ import annotations

import asyncio

import asyncpg
import pytest

from brain.errors import DatabaseUnreachable
from brain.listener.bell import Bell

PATIENCE_SECONDS = 20.0


async def test_a_session_that_no_longer_listens_is_noticed(connection: asyncpg.Connection) -> None:
    bell = Bell(connection, timeout_seconds=5)
    await bell.listen()
    await bell.check()

    await connection.execute("UNLISTEN *")  # as a pooler does that lends the session to another

    with pytest.raises(DatabaseUnreachable, match="no longer listens"):
        await bell.check()


async def test_a_bell_that_rang_before_it_was_waited_for_is_not_missed(
    database: str, connection: asyncpg.Connection
) -> None:
    listening = await asyncpg.connect(database)
    bell = Bell(listening, timeout_seconds=5)
    await bell.listen()
    await connection.execute("NOTIFY brain")
    await bell.check()  # by now the notification has been read

    async with asyncio.timeout(PATIENCE_SECONDS):
        await bell.wait(seconds=3600)
    await listening.close()


async def test_a_connection_that_is_terminated_wakes_the_sleeper(
    database: str, connection: asyncpg.Connection
) -> None:
    listening = await asyncpg.connect(database)
    bell = Bell(listening, timeout_seconds=5)
    await bell.listen()
    pid = listening.get_server_pid()
    await connection.execute("SELECT pg_terminate_backend($1)", pid)

    async with asyncio.timeout(PATIENCE_SECONDS):
        with pytest.raises(DatabaseUnreachable, match="closed"):
            await bell.wait(seconds=3600)
