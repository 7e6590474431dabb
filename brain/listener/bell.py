"""The connection that listens."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg

from brain.errors import DatabaseUnreachable

CHANNEL = "brain"


class Bell:
    """
    Hears that there is something to read, and says to writers whether anybody sleeps.

    The connection is never in a transaction and never asked anything that could block, except for
    the lock by which a node says that it sleeps. A notification only sets a flag: it carries
    nothing, and what it means is read from the log.
    """

    def __init__(self, connection: asyncpg.Connection, timeout_seconds: float) -> None:
        self._connection = connection
        self._timeout_seconds = timeout_seconds
        self._rang = asyncio.Event()
        self._was_woken = False
        self.is_parked = False
        """Whether writers are being told to ring."""

    async def listen(self) -> None:
        """
        Begin to listen. Whatever is committed after this returns will ring.

        asyncpg drops what arrives while it registers the callback, so the log is to be read after
        this and not before.
        """
        self._connection.add_termination_listener(lambda _: self.wake())
        await self._connection.add_listener(CHANNEL, lambda *_: self.wake())

    async def park(self) -> None:
        """
        Ask writers to ring, from their next change on.

        Anybody may hold this lock against us; then the node stays awake.
        """
        self.is_parked = bool(await self._ask("SELECT pg_try_advisory_lock_shared(5221, 2)"))

    async def unpark(self) -> None:
        """Spare writers the ringing."""
        self.is_parked = False
        await self._ask("SELECT pg_advisory_unlock_shared(5221, 2)")

    async def wait(self, seconds: float) -> bool:
        """
        Sleep until it rings or is woken, or for `seconds`; return whether it was woken.

        Raises `DatabaseUnreachable` if the connection is closed.
        """
        timer = asyncio.get_running_loop().call_later(seconds, self._rang.set)
        try:
            await self._rang.wait()
        finally:
            timer.cancel()
        self._rang.clear()
        was_woken, self._was_woken = self._was_woken, False
        if self._connection.is_closed():
            raise DatabaseUnreachable("the connection that listens was closed")
        return was_woken

    def wake(self) -> None:
        """End the sleep."""
        self._was_woken = True
        self._rang.set()

    async def check(self) -> None:
        """
        Raise if nothing can be heard here any more.

        asyncpg does not notice a link that went dead without a word; this question does.
        """
        if await self._ask("SELECT count(*) FROM pg_listening_channels()") == 0:
            raise DatabaseUnreachable("the session no longer listens")

    async def _ask(self, query: str) -> Any:
        return await self._connection.fetchval(query, timeout=self._timeout_seconds)
