"""Reads something of the watches again when one of them has changed."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import suppress

import asyncpg

from brain.database.backoff import delays
from brain.database.connection import DATABASE_ERRORS, explain
from brain.database.single_flight import SingleFlight
from brain.message.event import Batch
from brain.problems import Problems

WATCHES_CHANNEL = "brain.watches"
"""The channel with an event for each change of a watch."""


class WatchFollower(ABC):
    """Knows something of the watches, as it was when it was read last."""

    poll_seconds: float | None = None
    """After which it is read again, also if no watch has changed; None: never."""

    def __init__(
        self, address: str, timeout_seconds: float, problems: Problems | None = None
    ) -> None:
        """`address` is that of its problems; a read may take `timeout_seconds`."""
        self._address = address
        self._timeout_seconds = timeout_seconds
        self._problems = problems or Problems()
        self._pool: asyncpg.Pool | None = None
        self._changed = asyncio.Event()
        self._changed.set()
        self._reading: SingleFlight[None, None] = SingleFlight(address)

    def connect(self, pool: asyncpg.Pool) -> None:
        """Read from `pool` from now on."""
        self._pool = pool

    def deliver(self, batch: Batch) -> None:
        """Notice that a watch may have changed."""
        if not batch.follows or any(event.channel == WATCHES_CHANNEL for event in batch.events):
            self._changed.set()

    async def run(self) -> None:
        """For ever: read when a watch has changed, or may have."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self.poll_seconds):
                    await self._changed.wait()
            self._changed.clear()
            for seconds in delays():
                try:
                    await self._read()
                except DATABASE_ERRORS as error:
                    self._problems.report(self._address, f"cannot be read: {explain(error)}")
                    await asyncio.sleep(seconds)
                else:
                    break

    async def _read(self) -> None:
        """Read; callers share a read that begins after they called. Raises `DATABASE_ERRORS`."""
        # A connection that is being given up must not keep the caller waiting.
        async with asyncio.timeout(self._timeout_seconds):
            await self._reading.run_later(None, self._read_now)

    async def _read_now(self) -> None:
        if self._pool is None:
            raise TimeoutError
        async with asyncio.timeout(self._timeout_seconds):
            await self._replace(self._pool)

    @abstractmethod
    async def _replace(self, pool: asyncpg.Pool) -> None:
        """Read from `pool`, and know what is read in place of what was known before."""


def ignore(channels: frozenset[str]) -> None:
    """Do nothing when channels change."""


class ChannelFollower(WatchFollower):
    """Knows a number for each of some channels, and which channels have another one by now."""

    query: str
    """Returns rows of a channel and its number."""

    def __init__(
        self,
        address: str,
        timeout_seconds: float,
        problems: Problems | None = None,
        on_change: Callable[[frozenset[str]], None] = ignore,
    ) -> None:
        """`on_change` is called with the channels that have another number, or none any more."""
        super().__init__(address, timeout_seconds, problems)
        self._on_change = on_change
        self._numbers: Mapping[str, int] | None = None
        """None before they were read."""

    async def _replace(self, pool: asyncpg.Pool) -> None:
        records = await pool.fetch(self.query)
        former, self._numbers = self._numbers, {channel: number for channel, number in records}
        if former is not None:
            either = former.keys() | self._numbers.keys()
            changed = {one for one in either if former.get(one) != self._numbers.get(one)}
            if changed:
                self._on_change(frozenset(changed))
