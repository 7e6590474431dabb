"""Processes that say who is connected to them, several of them in one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

import asyncpg

from brain.database.attendance import Attendance, Visit
from brain.database.nodes import EVERYWHERE, Nodes

PATIENCE_SECONDS = 20.0

TERMINATE = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
     WHERE datname = current_database() AND pid <> pg_backend_pid()
"""
TOLD = """
    SELECT data ->> 'userId', data ->> 'status' FROM brain.events
     WHERE channel = 'presence' AND type = 'user_presence' AND operation = 'P' ORDER BY id
"""


class ToldNodes(Nodes):
    """Says which process it is, and may die without a word."""

    is_to_die = False

    @property
    def id(self) -> UUID:
        return self._id

    async def is_answered(self) -> bool:
        """Whether the database says anything; what was to be told has been told before that."""
        return await self._answer((EVERYWHERE, None)) is not None

    async def _leave(self, connection: asyncpg.Connection) -> None:
        if not self.is_to_die:
            await super()._leave(connection)


class Process:
    """One of those that serve, as far as the others hear of it."""

    def __init__(self, url: str, timeout_seconds: float) -> None:
        self.attendance = Attendance()
        self.nodes = ToldNodes(url, self.attendance, timeout_seconds)
        self._beating = asyncio.create_task(self.nodes.beat())

    def welcome(
        self, user: str | None = None, channels: str = "", *, is_listed: bool = False
    ) -> Visit:
        """Have a client connect that hears these channels, with spaces between them."""
        visit = Visit(uuid4(), user, is_listed, frozenset(channels.split()))
        self.attendance.arrive(visit)
        return visit

    async def known(self) -> None:
        """Return once the database has heard of all that happened before."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not await self.nodes.is_answered() or self.attendance.has_changed:
                await asyncio.sleep(0.001)

    async def end(self) -> None:
        """Say goodbye."""
        self._beating.cancel()
        await asyncio.wait([self._beating])

    async def die(self) -> None:
        """End without a word."""
        self.nodes.is_to_die = True
        await self.end()


@asynccontextmanager
async def attending(
    url: str, timeout_seconds: float = 2 * PATIENCE_SECONDS
) -> AsyncIterator[Process]:
    """Yield a process that the database knows."""
    process = Process(url, timeout_seconds)
    try:
        await process.known()
        yield process
    finally:
        await process.end()


async def becomes(ask: Callable[[], Awaitable[object]], expected: object) -> None:
    """Return once `ask` is answered as expected."""
    answer = None
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (answer := await ask()) != expected:
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"{answer!r} instead of {expected!r}") from None


async def last_seen(connection: asyncpg.Connection, node: UUID, seconds_ago: float) -> None:
    """Make believe that a node was not seen since then."""
    await connection.execute(
        "UPDATE brain.nodes SET seen_at = clock_timestamp() - make_interval(secs => $2)"
        " WHERE id = $1",
        node,
        seconds_ago,
    )


async def told(connection: asyncpg.Connection) -> list[tuple[str, str]]:
    """Return which user was told to be how, from the first time on."""
    return [(row[0], row[1]) for row in await connection.fetch(TOLD)]
