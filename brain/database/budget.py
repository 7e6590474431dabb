"""
Queries of tables and functions of users: bounded in time, in waiting for locks, and in number.

A slow or locked table, feed or function holds up those who ask for it, and others only until it is
known to be slow.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import asyncpg

from brain.database.connection import explain, first_line, is_lost_link
from brain.database.log import LogConnection
from brain.database.message_limit import MessageTooLarge
from brain.errors import LogUnavailable

# How many queries of one kind run at a time: of those that are not known to be slow, and of others.
FAST_PLACES = 2
SLOW_PLACES = 2
# How long a query may take that is not known to be slow.
FIRST_SECONDS = 0.25
# How long a query waits for a lock, and for how long it is run again after that.
TRY_LOCK_SECONDS = 0.01
LOCK_SECONDS = 2.0
PAUSE_SECONDS = 0.1
# How much later than the server the driver gives up a query: it closes the connection.
GRACE_SECONDS = 1.0
MOST_SLOW = 1000

PINNED = "SET LOCAL search_path = pg_catalog, pg_temp"
"""Where the names of a query are looked up, whatever ran in the transaction before."""

Outcome = TypeVar("Outcome")


class TooSlow(Exception):
    """A query took longer than it may, or waited for longer."""

    def __init__(self, name: Hashable, reason: str) -> None:
        super().__init__(reason)
        self.name = name


class Locked(TooSlow):
    """A query met a lock that another session holds."""

    def __init__(self, name: Hashable) -> None:
        super().__init__(name, "it waited too long for a lock")


class QueryFailed(Exception):
    """A query failed of itself, and not because the database was lost; its cause says why."""

    def __init__(self, name: Hashable) -> None:
        super().__init__(name)
        self.name = name


async def pause(_: Hashable) -> bool:
    await asyncio.sleep(PAUSE_SECONDS)
    return True


class Lanes:
    """
    Runs a few queries of one kind at a time, so that connections of the pool are left to others.

    A query has the names of what it reads. In the fast lane it has a quarter of a second. If that
    is not enough, one of its names is slow from then on: the query is run once more in the slow
    lane, where it has all of its time, and where one query runs at a time per slow name. A name is
    slow until it is read quickly there.

    A query that meets a lock leaves its place, and is run again once the lock may be gone.
    """

    def __init__(self, seconds: float, wait_seconds: float) -> None:
        """`seconds` are those of a query; for a place in a lane it waits for `wait_seconds`."""
        self._seconds = seconds
        self._wait_seconds = wait_seconds
        self._slow_names: dict[Hashable, None] = {}
        self._fast = asyncio.Semaphore(FAST_PLACES)
        self._turns: WeakValueDictionary[Hashable, asyncio.Lock] = WeakValueDictionary()
        """Per group, in the fast lane."""
        self._in_slow_lane: list[frozenset[Hashable]] = []
        """Per query what no other one may read at the same time."""
        self._slow_lane_changed = asyncio.Event()

    async def run(
        self,
        names: Iterable[Hashable],
        query: Callable[[float], Awaitable[Outcome]],
        *,
        group: Hashable = None,
        until_unlocked: Callable[[Hashable], Awaitable[bool]] = pause,
    ) -> Outcome:
        """
        Return the outcome of `query`, which is called with the seconds that it may take.

        Of a group one query runs at a time in each lane. After a `Locked` with one of the names,
        `until_unlocked` is awaited until it returns True.

        Raises `TooSlow`, as `query` does with one of the names.
        """
        names = frozenset(names)
        left = min(LOCK_SECONDS, self._seconds)
        while True:
            try:
                return await self._run(names, query, group)
            except Locked as locked:
                begun_at = time.monotonic()
                try:
                    async with asyncio.timeout(left) as limit:
                        while not await until_unlocked(locked.name):
                            pass
                except TimeoutError:
                    if limit.expired():
                        raise locked from None
                    raise
                left -= time.monotonic() - begun_at

    async def _run(
        self,
        names: frozenset[Hashable],
        query: Callable[[float], Awaitable[Outcome]],
        group: Hashable,
    ) -> Outcome:
        wait_until = time.monotonic() + self._wait_seconds
        if not self._slow(names):
            async with self._fast_place(names, group, wait_until):
                # They may have been found to be slow while this one waited.
                if not self._slow(names):
                    try:
                        return await query(min(FIRST_SECONDS, self._seconds))
                    except Locked:
                        raise
                    except TooSlow as error:
                        self.add_slow(error.name)
                        if self._seconds <= FIRST_SECONDS:
                            raise
        async with self._slow_place(names, group, wait_until):
            begun_at = time.monotonic()
            outcome = await query(self._seconds)
            if time.monotonic() - begun_at < FIRST_SECONDS / 2:
                for name in names:
                    self._slow_names.pop(name, None)
            return outcome

    def is_slow(self, name: Hashable) -> bool:
        return name in self._slow_names

    def _slow(self, names: frozenset[Hashable]) -> frozenset[Hashable]:
        return names & self._slow_names.keys()

    def add_slow(self, name: Hashable) -> None:
        """Have queries with a name run in the slow lane."""
        self._slow_names[name] = None
        if len(self._slow_names) > MOST_SLOW:
            del self._slow_names[next(iter(self._slow_names))]

    @asynccontextmanager
    async def _fast_place(
        self, names: frozenset[Hashable], group: Hashable, wait_until: float
    ) -> AsyncIterator[None]:
        turn = asyncio.Lock()
        if group is not None:
            turn = self._turns.setdefault(group, turn)
        await self._wait(turn.acquire(), names, wait_until)
        try:
            await self._wait(self._fast.acquire(), names, wait_until)
            try:
                yield
            finally:
                self._fast.release()
        finally:
            turn.release()

    @asynccontextmanager
    async def _slow_place(
        self, names: frozenset[Hashable], group: Hashable, wait_until: float
    ) -> AsyncIterator[None]:
        while True:
            alone = self._slow(names) if group is None else frozenset([group])
            if len(self._in_slow_lane) < SLOW_PLACES and not any(
                alone & other for other in self._in_slow_lane
            ):
                break
            await self._wait(self._slow_lane_changed.wait(), names, wait_until)
        self._in_slow_lane.append(alone)
        try:
            yield
        finally:
            self._in_slow_lane.remove(alone)
            self._slow_lane_changed.set()  # for those that wait now
            self._slow_lane_changed.clear()

    async def _wait(
        self, place: Awaitable[object], names: frozenset[Hashable], wait_until: float
    ) -> None:
        try:
            async with asyncio.timeout(wait_until - time.monotonic()):
                await place
        except TimeoutError:
            name = next(iter(self._slow(names) or names))
            raise TooSlow(name, "too many others wait for it") from None


@asynccontextmanager
async def undone(connection: LogConnection, **options: Any) -> AsyncIterator[None]:
    """
    Open a transaction, or a savepoint, that is rolled back in any case.

    What users define may run in it, and leave settings behind, or cursors whose query would run at
    the commit.
    """
    transaction = connection.transaction(**options)
    await transaction.start()
    try:
        yield
    finally:
        await transaction.rollback()


@asynccontextmanager
async def bounded(
    connection: LogConnection, seconds: float, lock_seconds: float = LOCK_SECONDS
) -> AsyncIterator[None]:
    """Open a transaction with a statement timeout of so many seconds, and one for each lock."""
    async with connection.transaction():
        await connection.execute(f"{PINNED};{limits(seconds, lock_seconds)}")
        yield


def limits(seconds: float, lock_seconds: float = TRY_LOCK_SECONDS) -> str:
    """Return the statements that limit what follows them in a transaction: locks come first."""
    return (
        f"SET LOCAL statement_timeout = {milliseconds(seconds)};"
        f"SET LOCAL lock_timeout = {milliseconds(min(lock_seconds, 0.8 * seconds))}"
    )


def milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))


def too_slow(name: Hashable, seconds: float, error: BaseException) -> TooSlow | None:
    """Return what an error of a query is if that took longer than it may; otherwise None."""
    match error:
        case asyncpg.LockNotAvailableError():
            return Locked(name)
        case asyncpg.QueryCanceledError() | TimeoutError():
            return TooSlow(name, f"it took longer than {seconds:g} s")
        case _:
            return None


@contextmanager
def concerning(name: Hashable, seconds: float) -> Iterator[None]:
    """Raise `TooSlow` or `QueryFailed` with a name for what a query raises."""
    try:
        yield
    except (asyncpg.PostgresError, UnicodeDecodeError, TimeoutError, MessageTooLarge) as error:
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
