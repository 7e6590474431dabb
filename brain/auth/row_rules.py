"""Which rows a client may see of the channels that `brain.restrict` has given row rules."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import asyncpg

from brain.auth.access_query import AccessQuery, access_query
from brain.database.connection import DATABASE_ERRORS, explain
from brain.database.single_flight import SingleFlight
from brain.database.watch_follower import ChannelFollower, ignore
from brain.errors import AccessUndecided
from brain.message.matching import RowAccess
from brain.problems import Problems

# For how long a client that asks for access may wait for the rules to be read.
FRESH_SECONDS = 1.0
# A client is looked for under each combination of the values that it may see.
MOST_COMBINATIONS_PER_CHANNEL = 1000

NOTHING = RowAccess("{}")

RULES = """
    SELECT channel, rule_number FROM brain.watched WHERE rules <> '{}'
"""
ACCESS = "SELECT channel, allowed FROM brain.row_access($2, $1::text::jsonb)"


class RowRules(ChannelFollower):
    """
    Knows which channels have row rules, and asks the database what they say of a token.

    The rules are read again when a client asks for access, too. For open clients nothing leaks
    before a change is noticed: an event says by itself that it is restricted, and a query for rows
    that does not say which returns none.
    """

    query = RULES

    def __init__(
        self,
        timeout_seconds: float,
        problems: Problems | None = None,
        on_change: Callable[[frozenset[str]], None] = ignore,
    ) -> None:
        """`on_change` is called with the channels that have other rules than before."""
        super().__init__("row rules", timeout_seconds, problems, on_change)
        self._asking: SingleFlight[AccessQuery, Mapping[str, RowAccess]] = SingleFlight(
            "row access"
        )

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
                await self._read()
        rules = self._numbers
        asked = frozenset(one for one in channels if rules is None or one in rules)
        if not asked:
            return {}
        try:
            query = access_query(claims, asked)
        except TypeError:  # an integer of more than 64 bits
            query = access_query({}, asked)
        try:
            # A connection that is being given up must not keep the caller waiting.
            async with asyncio.timeout(self._timeout_seconds):
                return await self._asking.run_later(query, partial(self._ask, query))
        except TimeoutError as error:
            raise self._undecided(error) from error

    async def _ask(self, query: AccessQuery) -> Mapping[str, RowAccess]:
        try:
            if self._pool is None:
                raise TimeoutError
            async with asyncio.timeout(self._timeout_seconds):
                records = await self._pool.fetch(ACCESS, query.claims, list(query.channels))
        except DATABASE_ERRORS as error:
            raise self._undecided(error) from error
        return {record["channel"]: self._access_in(record) for record in records}

    def _undecided(self, error: BaseException) -> AccessUndecided:
        self._problems.report("row rules", f"access cannot be decided: {explain(error)}")
        return AccessUndecided()

    def _access_in(self, record: asyncpg.Record) -> RowAccess:
        access = RowAccess(record["allowed"])
        if access.combinations > MOST_COMBINATIONS_PER_CHANNEL:
            self._problems.report(
                f"row rules {record['channel']}",
                f"the claims of a token allow {access.combinations} combinations of values, and at"
                f" most {MOST_COMBINATIONS_PER_CHANNEL} are possible: its client gets no rows",
                channel=record["channel"],
            )
            return NOTHING
        return access
