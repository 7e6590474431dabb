"""
Queries of tables and functions of users: bounded in time, in waiting for locks, and in number.

A slow or locked table holds up the clients that ask for it, and others only until it is known.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar

import asyncpg

from brain.database.connection import explain, first_line, is_lost_link
from brain.database.log import LogConnection
from brain.errors import LogUnavailable

# How long a query may take that is not known to be slow.
FIRST_SECONDS = 1.0
# How long a query waits for a lock.
LOCK_SECONDS = 2.0
# How much later than the server the driver gives up a query: it closes the connection.
GRACE_SECONDS = 1.0
MOST_SLOW = 1000

Outcome = TypeVar("Outcome")


class TooSlow(Exception):
    """A query took longer than it may, or waited for a lock for longer."""

    def __init__(self, name: Hashable, reason: str) -> None:
        super().__init__(reason)
        self.name = name


class QueryFailed(Exception):
    """A query failed of itself, and not because the database was lost; its cause says why."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class Lanes:
    """
    Runs a few queries at a time, so that some connections of the pool are left to others.

    A query has a second. One that needs longer is run once more in the slow lane, where it has all
    of its time, and where one runs at a time; the next one of its name begins there. So any number
    of slow queries hold up the others for a second, and only once.
    """

    def __init__(self, seconds: float) -> None:
        """`seconds` are those of a query, and for how long it waits until it may run."""
        self._seconds = seconds
        self._fast = asyncio.Semaphore(2)
        self._slow = asyncio.Semaphore(1)
        self._slow_names: dict[Hashable, None] = {}

    async def run(
        self, names: Iterable[Hashable], query: Callable[[float], Awaitable[Outcome]]
    ) -> Outcome:
        """
        Return the outcome of `query`, which is called with the seconds that it may take.

        Raises `TooSlow`, as `query` does with one of the names.
        """
        names = tuple(names)
        if self._slow_names.keys().isdisjoint(names):
            async with self._place(self._fast, names):
                try:
                    return await query(min(FIRST_SECONDS, self._seconds))
                except TooSlow as error:
                    self._slow_names[error.name] = None
                    if len(self._slow_names) > MOST_SLOW:
                        del self._slow_names[next(iter(self._slow_names))]
                    if self._seconds <= FIRST_SECONDS:
                        raise
        async with self._place(self._slow, names):
            begun_at = time.monotonic()
            outcome = await query(self._seconds)
            if time.monotonic() - begun_at < FIRST_SECONDS / 2:
                for name in names:
                    self._slow_names.pop(name, None)
            return outcome

    @asynccontextmanager
    async def _place(
        self, places: asyncio.Semaphore, names: tuple[Hashable, ...]
    ) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._seconds):
                await places.acquire()
        except TimeoutError:
            raise TooSlow(next(iter(names), None), "too many others are slow") from None
        try:
            yield
        finally:
            places.release()


@asynccontextmanager
async def bounded(connection: LogConnection, seconds: float, **options: Any) -> AsyncIterator[None]:
    """Open a transaction with a statement timeout of so many seconds."""
    async with connection.transaction(**options):
        await connection.execute(limits(seconds))
        yield


def limits(seconds: float) -> str:
    """Return the statements that limit what follows them in a transaction: locks come first."""
    return (
        f"SET LOCAL statement_timeout = {milliseconds(seconds)};"
        f"SET LOCAL lock_timeout = {milliseconds(min(LOCK_SECONDS, 0.8 * seconds))}"
    )


def milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))


def too_slow(name: Hashable, seconds: float, error: BaseException) -> TooSlow | None:
    """Return what an error of a query is if that took longer than it may; otherwise None."""
    match error:
        case asyncpg.LockNotAvailableError():
            return TooSlow(name, "it waited too long for a lock")
        case asyncpg.QueryCanceledError() | TimeoutError():
            return TooSlow(name, f"it took longer than {seconds:g} s")
        case _:
            return None


@contextmanager
def concerning(name: str, seconds: float) -> Iterator[None]:
    """Raise `TooSlow` or `QueryFailed` with a name for what a query raises."""
    try:
        yield
    except (asyncpg.PostgresError, UnicodeDecodeError, TimeoutError) as error:
        if is_lost_link(error):
            raise
        raise (too_slow(name, seconds, error) or QueryFailed(name)) from error


def reason_for_clients(error: BaseException) -> str:
    """
    Return why a query failed, in words that may be shown to clients.

    An error of class 42 names tables, columns and functions; others may have values of rows.
    """
    if isinstance(error, TooSlow):
        return str(error)
    error = error.__cause__ or error
    if isinstance(error, asyncpg.PostgresError) and str(error.sqlstate).startswith("42"):
        return first_line(error)
    return "the query fails"


def reason(error: BaseException) -> str:
    """Return why a query failed, in full."""
    return str(error) if isinstance(error, TooSlow) else explain(error.__cause__ or error)


def unavailable(name: str, error: BaseException) -> LogUnavailable:
    """Return the error for the clients of what cannot be read."""
    return LogUnavailable(f"{name} cannot be read: {reason_for_clients(error)}")
