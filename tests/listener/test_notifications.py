from __future__ import annotations

import asyncio

import asyncpg
import pytest

from brain.errors import DatabaseUnreachable
from brain.listener.notifications import Notifications

pytestmark = pytest.mark.postgres_versions

PATIENCE_SECONDS = 20.0


async def test_a_session_that_no_longer_listens_is_noticed(connection: asyncpg.Connection) -> None:
    notifications = Notifications(connection, timeout_seconds=5)
    await notifications.listen()
    await notifications.check()

    await connection.execute("UNLISTEN *")  # as a pooler that reuses the session does

    with pytest.raises(DatabaseUnreachable, match="no longer listens"):
        await notifications.check()


async def test_a_notification_before_the_wait_is_not_missed(
    database: str, connection: asyncpg.Connection
) -> None:
    listening = await asyncpg.connect(database)
    notifications = Notifications(listening, timeout_seconds=5)
    await notifications.listen()
    await connection.execute("NOTIFY brain")
    await notifications.check()  # by now the notification has been read

    async with asyncio.timeout(PATIENCE_SECONDS):
        await notifications.wait(seconds=3600)
    await listening.close()


async def test_a_terminated_connection_ends_the_wait(
    database: str, connection: asyncpg.Connection
) -> None:
    listening = await asyncpg.connect(database)
    notifications = Notifications(listening, timeout_seconds=5)
    await notifications.listen()
    pid = listening.get_server_pid()
    await connection.execute("SELECT pg_terminate_backend($1)", pid)

    async with asyncio.timeout(PATIENCE_SECONDS):
        with pytest.raises(DatabaseUnreachable, match="closed"):
            await notifications.wait(seconds=3600)
