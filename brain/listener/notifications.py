"""The connection that listens for notifications."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg

from brain.errors import DatabaseUnreachable

NOTIFICATION_CHANNEL = "brain"


class Notifications:
    """
    Wakes the batch source on notifications, and shows writers whether this node is parked.

    A node is parked while it waits for notifications: it holds an advisory lock, which writers
    check before they notify. The connection is never in a transaction. A notification only sets a
    flag: it carries no data, the log does.
    """

    def __init__(self, connection: asyncpg.Connection, timeout_seconds: float) -> None:
        self.connection = connection
        self._timeout_seconds = timeout_seconds
        self._wake_up = asyncio.Event()
        self._was_woken = False
        self.is_parked = False
        """True while writers notify this node."""

    async def listen(self) -> None:
        """
        Begin to listen. What is committed after this returns will notify.

        asyncpg drops what arrives while it registers the callback, so the log is to be read after
        this and not before.
        """
        self.connection.add_termination_listener(self.wake)
        await self.connection.add_listener(NOTIFICATION_CHANNEL, self.wake)

    async def park(self) -> None:
        """
        Make writers notify, from their next change on.

        Another session may hold this lock exclusively; then the node goes on polling.
        """
        self.is_parked = bool(await self._query("SELECT pg_try_advisory_lock_shared(5221, 2)"))

    async def unpark(self) -> None:
        """Let writers commit without notifying."""
        self.is_parked = False
        await self._query("SELECT pg_advisory_unlock_shared(5221, 2)")

    async def wait(self, seconds: float) -> bool:
        """
        Wait for a notification or `wake`, for up to `seconds`; return False for a timeout.

        Raises `DatabaseUnreachable` if the connection is closed.
        """
        timer = asyncio.get_running_loop().call_later(seconds, self._wake_up.set)
        try:
            await self._wake_up.wait()
        finally:
            timer.cancel()
        self._wake_up.clear()
        was_woken, self._was_woken = self._was_woken, False
        if self.connection.is_closed():
            raise DatabaseUnreachable("the listening connection was closed")
        return was_woken

    def wake(self, *_: object) -> None:
        """End `wait`: a callback for whatever event, which sets a flag and nothing else."""
        self._was_woken = True
        self._wake_up.set()

    async def check(self) -> None:
        """
        Raise if no notification can arrive any more.

        asyncpg does not notice a link that went dead silently; this query does.
        """
        if await self._query("SELECT count(*) FROM pg_listening_channels()") == 0:
            raise DatabaseUnreachable("the session no longer listens")

    async def start_over(self) -> None:
        """
        Unpark, wherever a call failed.

        Raises if no notification can arrive any more.
        """
        self.is_parked = False
        await self._query("SELECT pg_advisory_unlock_all()")
        await self.check()

    async def _query(self, query: str) -> Any:
        return await self.connection.fetchval(query, timeout=self._timeout_seconds)
