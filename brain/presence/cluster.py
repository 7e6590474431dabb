"""Who is connected to any process that serves the same database."""

from __future__ import annotations

import asyncio
import math
import os
import socket
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from typing import NamedTuple
from uuid import UUID, uuid4

import asyncpg
import orjson

from brain.database.connection import (
    DATABASE_ERRORS,
    connected,
    explain,
    is_lost_link,
)
from brain.database.session_settings import holds_text
from brain.presence.tracker import (
    DISCONNECTED,
    MOST_REPORTED_CHANNELS,
    PresenceTracker,
    PresenceUpdate,
    is_text,
)
from brain.problems import Problems

# brain.is_recent treats a process as dead once it has not reported for five seconds.
REPORT_SECONDS = 2.0
# How often the counts are compared, and the shortest time between two reports.
COMPARE_SECONDS = 0.2
# Changes of users are reported at once, and those within this time together.
GATHER_SECONDS = 0.02
RESULT_SECONDS = 0.5
LEAVE_SECONDS = 1.0
RETRY_SECONDS = 1.0

# How many changes of users one report has, beside the list of users.
MOST_REPORTED_CHANGES = 5000
# How many different queries may wait. A further one is answered for this process alone.
MOST_WAITING_QUERIES = 1000

REPORT = (
    "SELECT brain.report_node("
    "$1, $2, $3, $4, $5, $6, $7::text::jsonb, $8, $9, $10::text::jsonb, $11)"
)
REMOVE = "SELECT brain.remove_node($1, $2)"
CLIENTS_ELSEWHERE = "SELECT brain.clients_on_other_nodes($1) AS clients"
COUNTS = "SELECT clients, authenticated, users, channels FROM brain.cluster_counts()"
SUBSCRIBERS = "SELECT clients, ids FROM brain.subscribers($1)"

CountQuery = tuple[str, object]
"""An SQL statement, and its argument."""


class PendingQuery(NamedTuple):
    """A query that callers wait for."""

    future: asyncio.Future[asyncpg.Record | None]
    awaited_until: float
    """When the last of them gives up, by `time.monotonic()`."""


class ClusterCounts(NamedTuple):
    """The numbers of all processes together."""

    clients: int
    authenticated: int
    """Of the clients, those with a user."""
    users: int
    """How many different ones."""
    channels: dict[str, int]
    """How many subscribers each channel has."""


class Cluster:
    """
    Reports to the other processes who is connected to this one, and knows their numbers.

    One task reports and queries, over a connection of its own: callers wait for that task and never
    for the database, and calls at the same time share a result. Without the database it is that of
    this process alone.
    """

    def __init__(
        self,
        url: str,
        tracker: PresenceTracker,
        timeout_seconds: float,
        problems: Problems | None = None,
        grace_seconds: float = 0.0,
    ) -> None:
        """
        The database may take `timeout_seconds` for a statement.

        A user without a connection is published as offline `grace_seconds` after the last one.
        """
        self._problems = problems or Problems()
        self._url = url
        self._tracker = tracker
        self._timeout_seconds = timeout_seconds
        self._id = uuid4()
        self._name = f"{socket.gethostname()} {os.getpid()}"
        self._grace_seconds = grace_seconds
        self._grace_ends: deque[float] = deque()
        """When to report so that users are published as offline, by `time.monotonic()`."""
        self._is_cut_off = False
        self._is_held: Callable[[str], bool] = is_text
        """Whether the database can hold a name: one that it cannot is known to this process alone,
        and must not stop the report."""
        self._reports = 0
        self._reported: tuple[int, int] | None = None
        self._reported_at = -math.inf
        self._wanted = asyncio.Event()
        """Set when a query waits, or something should be reported soon."""
        self._queries: dict[CountQuery, PendingQuery] = {}
        """The results that callers wait for."""
        tracker.on_urgent = self._wanted.set

    @property
    def is_cut_off(self) -> bool:
        """True while this process cannot report to the others, nor hear of them."""
        return self._is_cut_off

    async def clients_elsewhere(self) -> int:
        """Return how many clients all others have; 0 if the database does not answer promptly."""
        result = await self._run_query((CLIENTS_ELSEWHERE, self._id))
        return result["clients"] if result else 0

    async def counts(self) -> ClusterCounts:
        """Return how many clients all processes have, and how many subscribers each channel has."""
        result = await self._run_query((COUNTS, None))
        if result is None:
            counts = self._tracker.counts()
            channels = dict(islice(counts.channels.items(), MOST_REPORTED_CHANNELS))
            return ClusterCounts(counts.clients, counts.authenticated, counts.users, channels)
        return ClusterCounts(
            result["clients"],
            result["authenticated"],
            result["users"],
            orjson.loads(result["channels"]),
        )

    async def subscribers(self, channel: str) -> tuple[int, list[UUID]]:
        """
        Return how many subscribers `channel` has in all processes, and the ids that may be listed.

        Of those at most ten thousand.
        """
        result = await self._run_query((SUBSCRIBERS, channel)) if self._is_held(channel) else None
        if result is None:
            tracker = self._tracker
            return tracker.counts().channels.get(channel, 0), tracker.listed(channel)
        return result["clients"], result["ids"]

    async def run(self) -> None:
        """For ever, report every change soon, and this process every few seconds."""
        while True:
            try:
                async with connected(self._url) as connection:
                    await self._run_while_connected(connection)
            except DATABASE_ERRORS as error:
                self._fail(error)
            await asyncio.sleep(RETRY_SECONDS)

    async def _run_while_connected(self, connection: asyncpg.Connection) -> None:
        has_characters = holds_text(connection)
        self._is_held = lambda name: is_text(name) and has_characters(name)
        while True:
            try:
                await self._run_over(connection)
            except DATABASE_ERRORS as error:
                if is_lost_link(error) or isinstance(error, TimeoutError):
                    raise
                if isinstance(error, asyncpg.UntranslatableCharacterError):
                    # PostgreSQL's table of the encoding has less than Python's.
                    self._is_held = lambda name: is_text(name) and name.isascii()
                self._fail(error)
            await asyncio.sleep(RETRY_SECONDS)

    def _fail(self, error: BaseException) -> None:
        self._problems.report(
            "presence", f"cannot report the clients to the other nodes: {explain(error)}"
        )
        self._is_cut_off = True
        self._resolve_empty(self._take_queries())

    async def _run_over(self, connection: asyncpg.Connection) -> None:
        # Another process may have taken this one for dead by now, or the server may have crashed.
        self._tracker.report_everything()
        try:
            while True:
                queries = self._take_queries()
                try:
                    if self._is_due(bool(queries)):
                        await self._report(connection)
                    for query, pending in queries.items():
                        # Many queries must not make this process look dead.
                        if self._is_due(False):
                            await self._report(connection)
                        if time.monotonic() < pending.awaited_until:
                            pending.future.set_result(await self._fetch(connection, query))
                finally:
                    self._resolve_empty(queries)
                self._is_cut_off = False
                await self._rest()
        except asyncio.CancelledError:
            await self._leave(connection)
            raise

    def _is_due(self, is_queried: bool) -> bool:
        since_report = time.monotonic() - self._reported_at
        if self._tracker.is_urgent or since_report >= REPORT_SECONDS:
            return True
        if self._grace_ends and time.monotonic() >= self._grace_ends[0]:
            return True
        has_changed = self._tracker.has_changed or self._counted() != self._reported
        return has_changed and (is_queried or since_report >= COMPARE_SECONDS)

    def _counted(self) -> tuple[int, int]:
        counts = self._tracker.counts()
        return counts.clients, counts.authenticated

    async def _rest(self) -> None:
        await asyncio.sleep(GATHER_SECONDS)
        if not self._tracker.is_urgent:
            with suppress(TimeoutError):
                async with asyncio.timeout(COMPARE_SECONDS):
                    await self._wanted.wait()

    async def _report(self, connection: asyncpg.Connection) -> None:
        counts, update = self._counted(), self._tracker.take_update(MOST_REPORTED_CHANGES)
        self._reported, self._reported_at = counts, time.monotonic()
        try:
            is_known = await self._send_report(connection, counts, update)
        except BaseException:
            self._tracker.report_everything(update)
            raise
        if not is_known:
            self._tracker.report_everything(update)
        self._remember_grace(update)

    def _remember_grace(self, update: PresenceUpdate) -> None:
        """Note when the grace ends of users who were reported to have left, and what has ended."""
        now = time.monotonic()
        while self._grace_ends and self._grace_ends[0] <= self._reported_at:
            self._grace_ends.popleft()
        if any(change == DISCONNECTED for _, change in update.changes):
            self._grace_ends.append(now + self._grace_seconds)

    async def _send_report(
        self, connection: asyncpg.Connection, counts: tuple[int, int], update: PresenceUpdate
    ) -> bool:
        """Report; return False if the database does not know this process, and needs everything."""
        self._reports += 1
        connections = {
            str(id): None if channels is None else sorted(filter(self._is_held, channels))
            for id, channels in update.connections.items()
        }
        counted = {name: count for name, count in update.channels.items() if self._is_held(name)}
        changes = [(user, change) for user, change in update.changes if self._is_held(user)]
        is_known: bool = await connection.fetchval(
            REPORT,
            self._id,
            self._name,
            self._reports,
            update.is_all,
            *counts,
            orjson.dumps(counted).decode(),
            [user for user, _ in changes],
            [change for _, change in changes],
            orjson.dumps(connections).decode(),
            self._grace_seconds,
            timeout=self._timeout_seconds,
        )
        return is_known

    async def _fetch(
        self, connection: asyncpg.Connection, query: CountQuery
    ) -> asyncpg.Record | None:
        statement, argument = query
        arguments = () if argument is None else (argument,)
        return await connection.fetchrow(statement, *arguments, timeout=self._timeout_seconds)

    async def _run_query(self, query: CountQuery) -> asyncpg.Record | None:
        """Return the result of a query; None if the database does not answer promptly."""
        pending = self._queries.get(query)
        if self._is_cut_off or (pending is None and len(self._queries) >= MOST_WAITING_QUERIES):
            return None
        future = pending.future if pending else asyncio.get_running_loop().create_future()
        self._queries[query] = PendingQuery(future, time.monotonic() + RESULT_SECONDS)
        self._wanted.set()
        await asyncio.wait([future], timeout=RESULT_SECONDS)
        return future.result() if future.done() else None

    def _take_queries(self) -> dict[CountQuery, PendingQuery]:
        """Return the queries to run now; later callers start new ones."""
        queries, self._queries = self._queries, {}
        self._wanted.clear()
        return queries

    def _resolve_empty(self, queries: dict[CountQuery, PendingQuery]) -> None:
        for pending in queries.values():
            if not pending.future.done():
                pending.future.set_result(None)

    async def _leave(self, connection: asyncpg.Connection) -> None:
        """Report that this process ends, if the database is reachable."""
        with suppress(*DATABASE_ERRORS):
            async with asyncio.timeout(LEAVE_SECONDS):
                await connection.execute(REMOVE, self._id, self._grace_seconds)
