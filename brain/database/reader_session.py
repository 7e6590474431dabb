"""
Runs queries of users' tables as brain_reader, in sessions that are ended from outside if need be.

What the owner of a table has defined runs in them, and may catch the cancellation of a statement,
and change all limits of its session. Only the end of its backend cannot be caught.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from asyncpg.transaction import Transaction

from brain.database.budget import GRACE_SECONDS, PINNED, TRY_LOCK_SECONDS, limits
from brain.database.connection import CLOSE_SECONDS, DATABASE_ERRORS, PooledConnection
from brain.database.log import LogConnection
from brain.database.message_limit import MOST_BYTES, MessageTooLarge

# How long a statement may still run once it has been cancelled.
CANCEL_SECONDS = 0.5


@asynccontextmanager
async def as_reader(connection: LogConnection, **options: Any) -> AsyncIterator[ReaderSession]:
    """
    Open a transaction that is rolled back, in which `pg_temp.brain_read` runs queries.

    `connection` is one of a pool. If something goes on in it, its backend is ended.
    """
    await connection.execute("SELECT brain.open_reader()")
    transaction = connection.transaction(**options)
    await transaction.start()
    session = ReaderSession(connection)
    try:
        with session.leaving():
            yield session
    finally:
        await session.leave(transaction)


class ReaderSession:
    """A session in which code of others may run."""

    def __init__(self, connection: LogConnection) -> None:
        self.connection = connection
        self._pooled: PooledConnection = connection.itself  # type: ignore[union-attr]
        self._timer: asyncio.TimerHandle | None = None
        self._ending: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def limited(
        self, seconds: float, lock_seconds: float = TRY_LOCK_SECONDS
    ) -> AsyncIterator[None]:
        """
        Limit what follows to so many seconds: by the server, and some later from outside.

        Raises `TimeoutError` if the backend had to be ended, and `MessageTooLarge`.
        """
        self._end_in(seconds + GRACE_SECONDS + CANCEL_SECONDS)
        try:
            with self.leaving():
                await self.connection.execute(f"{PINNED};{limits(seconds, lock_seconds)}")
                yield
        except Exception as error:
            if self._pooled.message_limit.is_exceeded:
                raise MessageTooLarge(
                    f"it raises notices or an error of more than {MOST_BYTES // 1024} KiB"
                ) from error
            if self._ending is not None:
                raise TimeoutError from error
            raise
        self._stop_timer()

    @contextmanager
    def leaving(self) -> Iterator[None]:
        """Have a statement that was cancelled in this context end soon: a rollback waits for it."""
        try:
            yield
        except (TimeoutError, asyncio.CancelledError):
            self._end_in(CANCEL_SECONDS)
            raise

    async def leave(self, transaction: Transaction) -> None:
        """Roll back; if that fails, end the backend, and leave the error to who has another."""
        try:
            await transaction.rollback()
        except DATABASE_ERRORS:
            self._end()
        except BaseException:
            self._end()
            raise
        finally:
            self._stop_timer()
        if self._ending is not None:
            # No other read takes its place meanwhile: so they do not become more and more.
            await asyncio.wait([self._ending], timeout=CLOSE_SECONDS)

    def _end_in(self, seconds: float) -> None:
        self._stop_timer()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._end)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _end(self) -> None:
        """End the backend. Its connection is closed, so no other read is ever over it."""
        if self._ending is None:
            self._ending = self._pooled.terminator.end(self._pooled.backend)
            self._pooled.terminate()
