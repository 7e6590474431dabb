"""The operator's own access function in SQL, in place of the claims of tokens."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import asyncpg

from brain.auth.access_query import AccessQuery, access_query
from brain.database.budget import TRY_LOCK_SECONDS, Lanes, TooSlow, bounded, too_slow
from brain.database.connection import DATABASE_ERRORS, explain
from brain.database.single_flight import SingleFlight
from brain.errors import AccessUndecided
from brain.problems import Problems

# How often Brain looks for the function, and for how long a result of it is kept.
LOOK_SECONDS = 3.0
KEEP_SECONDS = 3.0
MOST_KEPT = 1000


# Any function of that name: one with other arguments is a mistake, and denies everything.
FIND = """
    SELECT string_agg(oid::text || ' ' || xmin::text, ',' ORDER BY oid) FROM pg_proc
     WHERE proname = 'may_read' AND pronamespace = to_regnamespace('brain')
"""
ASK = "SELECT c FROM unnest($2::text[]) c WHERE brain.may_read($1::text::jsonb, c)"

# Errors of the server and not of the function, which may not have been called.
SERVER_ERRORS = (
    asyncpg.PostgresConnectionError,
    asyncpg.TransactionRollbackError,
    asyncpg.InsufficientResourcesError,
    asyncpg.LockNotAvailableError,
    asyncpg.OperatorInterventionError,
    asyncpg.PostgresSystemError,
)

FAILS = "brain.may_read fails, which denies access"
UNDECIDED = "brain.may_read cannot be called, which refuses clients"


def ignore() -> None:
    """Do nothing when the function changes."""


class AccessFunction:
    """
    Calls the function `brain.may_read(claims jsonb, channel text)`, if the database has one.

    A channel is readable if it returns true. It is not if the function returns anything else, or
    fails. Nothing is decided if it cannot be called, or takes longer than `timeout_seconds`.
    """

    def __init__(
        self,
        timeout_seconds: float,
        pool: asyncpg.Pool | None = None,
        problems: Problems | None = None,
        on_change: Callable[[], None] = ignore,
    ) -> None:
        """`on_change` is called after the function has changed."""
        self._on_change = on_change
        self._problems = problems or Problems()
        self._timeout_seconds = timeout_seconds
        self._pool = pool
        """None until there is one: before that, nothing is decided."""
        self._is_known = asyncio.Event()
        self._version: str | None = None
        """Identifies the present definition of the function; None if there is none."""
        self._lanes = Lanes(timeout_seconds, wait_seconds=timeout_seconds)
        self._shared: SingleFlight[tuple[str | None, AccessQuery], frozenset[str] | None] = (
            SingleFlight("access function")
        )
        """The calls of each version: one that began before a change may return what held then."""
        self._kept: dict[AccessQuery, tuple[float, frozenset[str] | None]] = {}
        """Until when a result is kept, by time.monotonic(), and the result; the oldest first.
        None: nothing was decided."""

    @property
    def is_replaced(self) -> bool:
        """
        True if the function decides, in place of the claims of tokens.

        Also as long as the database could not be asked even once.
        """
        return self._version is not None or not self._is_known.is_set()

    async def follow(self, pool: asyncpg.Pool) -> None:
        """For ever, look every few seconds for the function and its definition."""
        self._pool = pool
        while True:
            await self.look()
            await asyncio.sleep(LOOK_SECONDS)

    async def known(self) -> None:
        """Return once it is known whether the function exists: until then it is called."""
        await self._is_known.wait()

    async def look(self) -> None:
        """Look for the function; if that fails, the former result stays valid."""
        if self._pool is None:
            return
        try:
            async with asyncio.timeout(self._timeout_seconds):
                version = await self._pool.fetchval(FIND)
        except DATABASE_ERRORS as error:
            self._warn("cannot look for the function brain.may_read", error)
            return
        has_changed = self._is_known.is_set() and version != self._version
        self._version = version
        self._is_known.set()
        if has_changed:
            self._kept.clear()
            self._on_change()

    async def channels(self, claims: Mapping[str, Any], channels: Iterable[str]) -> frozenset[str]:
        """
        Return those of `channels` that a client with these claims may read.

        Raises `AccessUndecided`.
        """
        try:
            query = access_query(claims, channels)
        except TypeError as error:
            self._warn("brain.may_read cannot be called", error)
            return frozenset()
        holds_until, result = self._kept.get(query, (0.0, None))
        if time.monotonic() >= holds_until and self._pool is not None:
            try:
                # A connection that is being given up must not keep the caller waiting.
                async with asyncio.timeout(self._timeout_seconds):
                    result = await self._shared.run(
                        (self._version, query), partial(self._call, self._pool, query)
                    )
            except TimeoutError as error:
                self._warn(UNDECIDED, error)
                result = None
        if result is None:
            raise AccessUndecided
        return result

    async def _call(self, pool: asyncpg.Pool, query: AccessQuery) -> frozenset[str] | None:
        result: frozenset[str] | None = None
        version = self._version
        try:
            async with asyncio.timeout(self._timeout_seconds):
                result = await self._lanes.run([query.claims], partial(self._ask, pool, query))
        except TooSlow as error:
            self._warn(UNDECIDED, error)
        except DATABASE_ERRORS as error:
            # asyncpg raises a ValueError for a text that PostgreSQL cannot hold.
            is_denied = isinstance(error, asyncpg.PostgresError | ValueError)
            if is_denied and not isinstance(error, SERVER_ERRORS):
                self._warn(FAILS, error)
                result = frozenset()
            else:
                self._warn(UNDECIDED, error)
        if version == self._version:
            self._keep(query, result)
        return result

    async def _ask(self, pool: asyncpg.Pool, query: AccessQuery, seconds: float) -> frozenset[str]:
        async with pool.acquire() as connection:
            try:
                async with bounded(connection, seconds, TRY_LOCK_SECONDS):
                    rows = await connection.fetch(ASK, query.claims, list(query.channels))
            except asyncpg.PostgresError as error:
                slow = too_slow(query.claims, seconds, error)
                if slow is None:
                    raise
                raise slow from error
        return frozenset(row["c"] for row in rows)

    def _keep(self, query: AccessQuery, result: frozenset[str] | None) -> None:
        self._kept.pop(query, None)
        self._kept[query] = (time.monotonic() + KEEP_SECONDS, result)
        if len(self._kept) > MOST_KEPT:
            del self._kept[next(iter(self._kept))]

    def _warn(self, message: str, error: Exception) -> None:
        self._problems.report("access function", f"{message}: {explain(error)}")
