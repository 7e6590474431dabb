"""Gives filters of subscriptions the types of columns of watched tables, and follows these."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from brain.database.connection import DATABASE_ERRORS, explain
from brain.database.row_conditions import bind_condition
from brain.database.single_flight import SingleFlight
from brain.database.watch_follower import ChannelFollower, ignore
from brain.errors import LogUnavailable
from brain.message.condition import EVERYTHING, Condition
from brain.problems import Problems

# How often to look whether columns have other types: PostgreSQL sends no notification of that.
LOOK_SECONDS = 3.0
# Conditions that are bound at once: the connections of the pool are for others, too.
MOST_AT_ONCE = 2
# How long a client waits for the conditions of others, in timeouts of the database.
WAIT_TIMEOUTS = 4

TYPES = "SELECT channel, types FROM brain.filter_types()"


class FilterBinder(ChannelFollower):
    """
    Binds conditions, and knows when they have to be bound again.

    Nothing is read before the first condition is bound.
    """

    query = TYPES
    poll_seconds = LOOK_SECONDS

    def __init__(
        self,
        timeout_seconds: float,
        problems: Problems | None = None,
        on_change: Callable[[frozenset[str]], None] = ignore,
    ) -> None:
        """`on_change` is called with the channels that have other columns or types now."""
        super().__init__("filters", timeout_seconds, problems, on_change)
        self._is_used = asyncio.Event()
        self._turns = asyncio.Semaphore(MOST_AT_ONCE)
        self._binding: SingleFlight[tuple[str, Condition], Condition] = SingleFlight("filter")

    async def run(self) -> None:
        await self._is_used.wait()
        await super().run()

    async def bind(self, channel: str, condition: Condition) -> Condition:
        """
        Return a parsed condition with the types that the columns of a channel have now.

        Raises `FilterRefused` and `LogUnavailable`.
        """
        if condition == EVERYTHING:
            return condition
        self._is_used.set()
        try:
            if self._numbers is None:
                await self._read()  # otherwise a change after this would not be noticed
            async with asyncio.timeout(WAIT_TIMEOUTS * self._timeout_seconds):
                return await self._binding.run_later(
                    (channel, condition), partial(self._bind, channel, condition)
                )
        except DATABASE_ERRORS as error:
            self._problems.report("filters", f"cannot be looked up: {explain(error)}")
            raise LogUnavailable("the filter cannot be looked up at the moment") from error

    async def _bind(self, channel: str, condition: Condition) -> Condition:
        if self._pool is None:
            raise TimeoutError
        async with self._turns, asyncio.timeout(self._timeout_seconds):
            return await bind_condition(self._pool, channel, condition)
