"""Finds out, for clients that wait, which tick sees a transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Literal, NamedTuple

import asyncpg

from brain.database.connection import DATABASE_ERRORS, explain
from brain.problems import Problems

# How long to wait before it is looked up again, each after the one before; the last one repeats.
PAUSE_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
MOST_AT_ONCE = 1000
MOST_ID = 2**64 - 1

NO_EVENTS = -1
"""In place of a tick: the transaction has nothing that could be sent."""

STATES = """
    SELECT transaction_id::text::numeric AS id, state, tick
      FROM brain.transaction_states($1::text[]::xid8[])
"""


class Outcome(NamedTuple):
    """What has become of a transaction."""

    state: Literal["unknown", "rolled back", "committed"]
    tick: int = NO_EVENTS
    """Of one that was committed: a tick that sees it."""


class AwaitedTransactions:
    """Looks up the transactions that clients wait for, all of them by one query."""

    def __init__(self, timeout_seconds: float = 5.0, problems: Problems | None = None) -> None:
        self._timeout_seconds = timeout_seconds
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
                rows = await self._pool.fetch(STATES, list(map(str, known)))
        except DATABASE_ERRORS as error:
            self._problems.report("transactions", f"cannot be looked up: {explain(error)}")
            return
        for row in rows:
            id, state, tick = int(row["id"]), row["state"], row["tick"]
            if state == "committed" and tick is not None:
                self._settle(id, Outcome("committed", tick))
            elif state in ("unknown", "rolled back"):
                self._settle(id, Outcome(state))
            elif id in self._waiting:
                self._waiting[id] = self._waiting.pop(id)

    def _settle(self, id: int, outcome: Outcome) -> None:
        for callback in self._waiting.pop(id, ()):
            callback(outcome)


def is_id(number: int) -> bool:
    """
    Return False for what is the id of no transaction.

    The lowest three numbers of each 2^32 have another meaning, whatever PostgreSQL says of them.
    """
    return number <= MOST_ID and number % 2**32 >= 3
