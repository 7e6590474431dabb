"""Nodes that report their clients to the database, several in one process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

import asyncpg

from brain.presence.cluster import COUNTS, Cluster
from brain.presence.tracker import ClientInfo, PresenceTracker

PATIENCE_SECONDS = 20.0

TERMINATE = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
     WHERE datname = current_database() AND pid <> pg_backend_pid()
"""
PUBLISHED = """
    SELECT data::json ->> 'userId', data::json ->> 'status' FROM brain.events
     WHERE channel = 'presence' AND type = 'user_presence' AND operation = 'P' ORDER BY id
"""


class MortalCluster(Cluster):
    """A cluster with a public id, which a node may end without leaving."""

    leaves = True

    @property
    def id(self) -> UUID:
        return self._id

    async def is_reachable(self) -> bool:
        """Return True if the database replies; pending reports are sent first."""
        return await self._run_query((COUNTS, None)) is not None

    async def _leave(self, connection: asyncpg.Connection) -> None:
        if self.leaves:
            await super()._leave(connection)


class Node:
    """The part of a node that reports presence."""

    def __init__(self, url: str, timeout_seconds: float, grace_seconds: float) -> None:
        self.tracker = PresenceTracker()
        self.cluster = MortalCluster(
            url, self.tracker, timeout_seconds, grace_seconds=grace_seconds
        )
        self._running = asyncio.create_task(self.cluster.run())

    def connect(
        self, user: str | None = None, channels: str = "", *, is_listed: bool = False
    ) -> ClientInfo:
        """Add a client; `channels` are separated by spaces."""
        client = ClientInfo(uuid4(), user, is_listed, frozenset(channels.split()))
        self.tracker.add(client)
        return client

    async def reported(self) -> None:
        """Wait until all earlier changes are in the database."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not await self.cluster.is_reachable() or self.tracker.has_changed:
                await asyncio.sleep(0.001)

    async def end(self) -> None:
        """End, and leave the cluster."""
        self._running.cancel()
        await asyncio.wait([self._running])

    async def die(self) -> None:
        """End without leaving the cluster."""
        self.cluster.leaves = False
        await self.end()


@asynccontextmanager
async def running_node(
    url: str, timeout_seconds: float = 2 * PATIENCE_SECONDS, grace_seconds: float = 0.0
) -> AsyncIterator[Node]:
    """Yield a node that has reported to the database."""
    node = Node(url, timeout_seconds, grace_seconds)
    try:
        await node.reported()
        yield node
    finally:
        await node.end()


async def becomes(call: Callable[[], Awaitable[object]], expected: object) -> None:
    """Wait until `call` returns what is expected."""
    result = None
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (result := await call()) != expected:
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"{result!r} instead of {expected!r}") from None


async def last_seen(connection: asyncpg.Connection, node: UUID, seconds_ago: float) -> None:
    """Set the time of a node's last report."""
    await connection.execute(
        "UPDATE brain.nodes SET seen_at = clock_timestamp() - make_interval(secs => $2)"
        " WHERE id = $1",
        node,
        seconds_ago,
    )


async def published(connection: asyncpg.Connection) -> list[tuple[str, str]]:
    """Return the users and statuses that were published, oldest first."""
    return [(row[0], row[1]) for row in await connection.fetch(PUBLISHED)]
