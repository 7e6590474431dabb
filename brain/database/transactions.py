"""Finds out, for clients that wait, which tick sees a transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Literal, NamedTuple

import asyncpg

from brain.database.connection import DATABASE_ERRORS, explain
from brain.database.log import Log
from brain.problems import Problems

# How long to wait before it is looked up again, each after the one before; the last one repeats.
PAUSE_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
MOST_AT_ONCE = 1000
MOST_ID = 2**64 - 1

NO_EVENTS = -1
"""In place of a tick: the transaction has nothing that could be sent, and no tick is cut for it."""

STATES = """
    SELECT transaction_id::text::numeric AS id, state, tick
      FROM brain.transaction_states($1::text[]::xid8[])
"""

State = tuple[int, Literal["unknown", "rolled back", "open", "committed"], int | None]
"""The id of a transaction, what has become of it, and a tick."""


class Outcome(NamedTuple):
    """What has become of a transaction."""

    state: Literal["unknown", "rolled back", "committed"]
    tick: int | None = None
    """Of one that was committed: all that was committed before it is sent up to this tick."""


class AwaitedTransactions:
    """Looks up the transactions that clients wait for, all of them by one query."""

    def __init__(
        self,
        timeout_seconds: float = 5.0,
        problems: Problems | None = None,
        on_tick: Callable[[], None] | None = None,
        comparable: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """
        `on_tick` is called after a tick was cut, of which nothing notifies the batch source;
        `comparable` is awaited before ticks are compared with what it has read.
        """
        self._timeout_seconds = timeout_seconds
        self._on_tick = on_tick
        self._comparable = comparable
        self._problems = problems or Problems()
        self._pool: asyncpg.Pool | None = None
        self._waiting: dict[int, list[Callable[[Outcome], None]]] = {}
        """The one that was looked up last is the last."""
        self._wake = asyncio.Event()
        self._pauses = iter(PAUSE_SECONDS)

    def connect(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    def wait(self, transaction_id: int, callback: Callable[[Outcome], None]) -> None:
        """Call `callback` in a later turn, once it is known what has become of a transaction."""
        self._waiting.setdefault(transaction_id, []).append(callback)
        self._pauses = iter(PAUSE_SECONDS)
        self._wake.set()

    def give_up(self, transaction_id: int, callback: Callable[[Outcome], None]) -> None:
        """Do not call `callback` any more."""
        callbacks = self._waiting.get(transaction_id, [])
        if callback in callbacks:
            callbacks.remove(callback)
        if not callbacks:
            self._waiting.pop(transaction_id, None)

    async def run(self) -> None:
        """For ever: look up what is waited for, again and again as long as anybody waits."""
        while True:
            if not self._waiting:
                self._wake.clear()
                await self._wake.wait()
            if self._comparable is not None:
                await self._comparable()
            await self._look_up()
            await asyncio.sleep(next(self._pauses, PAUSE_SECONDS[-1]))

    async def _look_up(self) -> None:
        ids = list(self._waiting)[:MOST_AT_ONCE]
        known = [id for id in ids if is_id(id)]
        for id in set(ids).difference(known):
            self._settle(id, Outcome("unknown"))
        if self._pool is None or not known:
            return
        try:
            async with asyncio.timeout(self._timeout_seconds):
                states = await self._states(self._pool, known)
        except DATABASE_ERRORS as error:
            self._problems.report("transactions", f"cannot be looked up: {explain(error)}")
            return
        for id, state, tick in states:
            if state == "committed" and tick is not None:
                self._settle(id, Outcome("committed", tick))
            elif state in ("unknown", "rolled back"):
                self._settle(id, Outcome(state))
            elif id in self._waiting:
                self._waiting[id] = self._waiting.pop(id)

    async def _states(self, pool: asyncpg.Pool, ids: Iterable[int]) -> list[State]:
        rows = await pool.fetch(STATES, list(map(str, ids)))
        newest = None
        if any(row["tick"] == NO_EVENTS for row in rows):
            newest = await self._newest_tick(pool)
        ticks = (newest if row["tick"] == NO_EVENTS else row["tick"] for row in rows)
        return [(int(row["id"]), row["state"], tick) for row, tick in zip(rows, ticks, strict=True)]

    async def _newest_tick(self, pool: asyncpg.Pool) -> int:
        """Return a tick that holds all that was committed so far; cut it if anything is new."""
        async with pool.acquire() as connection:
            newest = await Log(connection, self._timeout_seconds).tick()
        if self._on_tick is not None:
            self._on_tick()
        return newest.tick

    def _settle(self, id: int, outcome: Outcome) -> None:
        for callback in self._waiting.pop(id, ()):
            callback(outcome)


def is_id(number: int) -> bool:
    """
    Return False for what is the id of no transaction.

    The lowest three numbers of each 2^32 have another meaning, whatever PostgreSQL says of them.
    """
    return number <= MOST_ID and number % 2**32 >= 3
