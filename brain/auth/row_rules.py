"""Which rows a client may see of the channels that `brain.restrict` has given row rules."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from math import prod
from typing import Any, NamedTuple

import asyncpg
import orjson

from brain.database.backoff import delays
from brain.database.connection import DATABASE_ERRORS, explain
from brain.database.single_flight import SingleFlight
from brain.database.watches import WATCHES_CHANNEL
from brain.errors import AccessUndecided
from brain.message.event import Batch
from brain.message.matching import RowAccess
from brain.problems import Problems

# For how long a client that asks for access may wait for the rules to be read.
FRESH_SECONDS = 1.0
# For how long what the claims of a token say is kept, for clients that connect one after another.
KEEP_SECONDS = 3.0
MOST_KEPT = 1000
# A client is looked for under each combination of the values that it may see.
MOST_COMBINATIONS = 1000

NOTHING = RowAccess("{}")

RULES = """
    SELECT channel, rule_number FROM brain.watched WHERE rules <> '{}'
"""
ACCESS = "SELECT channel, allowed FROM brain.row_access($2, $1::text::jsonb)"


def ignore(channels: frozenset[str]) -> None:
    """Do nothing when the rules of channels change."""


class Query(NamedTuple):
    claims: str
    """As JSON."""
    channels: frozenset[str]


class RowRules:
    """
    Knows which channels have row rules, and asks the database what they say of a token.

    The rules are read when a watch changes, and when a client asks for access: one read serves all
    that wait for it. For open clients nothing leaks before a change is noticed: an event says by
    itself that it is restricted, and a query for rows that does not say which returns none.
    """

    def __init__(
        self,
        timeout_seconds: float,
        problems: Problems | None = None,
        on_change: Callable[[frozenset[str]], None] = ignore,
    ) -> None:
        """`on_change` is called with the channels whose rules have changed."""
        self._timeout_seconds = timeout_seconds
        self._problems = problems or Problems()
        self._on_change = on_change
        self._pool: asyncpg.Pool | None = None
        self._rules: Mapping[str, int] | None = None
        """The number of those of each channel; None before they were read."""
        self._changed = asyncio.Event()
        self._changed.set()
        self._shared: SingleFlight[Query, Mapping[str, RowAccess]] = SingleFlight("row rules")
        self._reading: SingleFlight[None, None] = SingleFlight("rules")
        self._kept: dict[Query, tuple[float, Mapping[str, RowAccess]]] = {}
        """Until when a result is kept, by time.monotonic(), and the result; the oldest first."""

    def connect(self, pool: asyncpg.Pool) -> None:
        """Read from `pool` from now on."""
        self._pool = pool

    def deliver(self, batch: Batch) -> None:
        """Notice that a watch, and so its rules, may have changed."""
        if not batch.follows or any(event.channel == WATCHES_CHANNEL for event in batch.events):
            self._changed.set()

    async def run(self) -> None:
        """For ever: read the rules when they have changed."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            for seconds in delays():
                try:
                    await self._reading.run_later(None, self._read)
                except DATABASE_ERRORS as error:
                    self._problems.report("row rules", f"cannot be read: {explain(error)}")
                    await asyncio.sleep(seconds)
                else:
                    break

    async def access(
        self, claims: Mapping[str, Any], channels: Iterable[str]
    ) -> Mapping[str, RowAccess]:
        """
        Return which rows a client with these claims may see, for those channels that have rules.

        The rules are those of now; without the database, those that it had when it was lost.

        Raises `AccessUndecided`.
        """
        with suppress(*DATABASE_ERRORS):
            # What is being read by now may be older than the rule that the client knows of.
            async with asyncio.timeout(FRESH_SECONDS):
                await self._reading.run_later(None, self._read)
        rules = self._rules
        asked = frozenset(one for one in channels if rules is None or one in rules)
        if not asked:
            return {}
        try:
            text = orjson.dumps(dict(claims), option=orjson.OPT_SORT_KEYS).decode()
        except TypeError:  # an integer of more than 64 bits
            text = "{}"
        query = Query(text, asked)
        holds_until, found = self._kept.get(query, (0.0, {}))
        if time.monotonic() >= holds_until:
            found = await self._shared.run(query, partial(self._ask, query))
        return found

    async def _read(self) -> None:
        if self._pool is None:
            raise TimeoutError
        async with asyncio.timeout(self._timeout_seconds):
            records = await self._pool.fetch(RULES)
        former = self._rules
        self._rules = {record["channel"]: record["rule_number"] for record in records}
        self._kept.clear()
        if former is not None:
            either = former.keys() | self._rules.keys()
            changed = {one for one in either if former.get(one) != self._rules.get(one)}
            if changed:
                self._on_change(frozenset(changed))

    async def _ask(self, query: Query) -> Mapping[str, RowAccess]:
        rules = self._rules
        try:
            if self._pool is None:
                raise TimeoutError
            async with asyncio.timeout(self._timeout_seconds):
                records = await self._pool.fetch(ACCESS, query.claims, list(query.channels))
        except DATABASE_ERRORS as error:
            self._problems.report("row rules", f"access cannot be decided: {explain(error)}")
            raise AccessUndecided(
                "access cannot be decided at the moment, try again later"
            ) from error
        found = {record["channel"]: self._access_in(record) for record in records}
        if rules is self._rules:
            self._keep(query, found)
        return found

    def _access_in(self, record: asyncpg.Record) -> RowAccess:
        access = RowAccess(record["allowed"])
        combinations = prod(len(values) for _, values in access.rules)
        if combinations > MOST_COMBINATIONS:
            self._problems.report(
                f"row rules {record['channel']}",
                f"the claims of a token allow {combinations} combinations of values, and at most"
                f" {MOST_COMBINATIONS} are possible: its client gets no rows",
                channel=record["channel"],
            )
            return NOTHING
        return access

    def _keep(self, query: Query, found: Mapping[str, RowAccess]) -> None:
        self._kept.pop(query, None)
        self._kept[query] = (time.monotonic() + KEEP_SECONDS, found)
        if len(self._kept) > MOST_KEPT:
            del self._kept[next(iter(self._kept))]
