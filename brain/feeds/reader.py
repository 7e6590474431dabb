"""Reads the definitions of feeds, and their states."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import asyncpg

from brain.database.budget import (
    GRACE_SECONDS,
    TRY_LOCK_SECONDS,
    Lanes,
    QueryFailed,
    TooSlow,
    concerning,
    reason,
    unavailable,
)
from brain.database.connection import DATABASE_ERRORS, explain
from brain.database.reader_session import as_reader
from brain.database.single_flight import SingleFlight
from brain.errors import LogUnavailable, SnapshotTooLarge
from brain.feeds.state import FeedState
from brain.problems import Problems
from brain.timing import NoteSeconds, ignore, timed

# Changes of the definitions are published on it.
CHANNEL = "brain.feeds"

LONGEST_ARGUMENT = 255
# How many times as long as a query may take it waits until it may run.
WAIT_QUERIES = 6

DEFINITIONS = """
    SELECT name, query, channels, takes_argument, argument_is_key, ignored_keys, argument_claim
      FROM brain.feeds
"""
# The subqueries are kept apart by OFFSET: each would be evaluated once for every use otherwise.
# In a database without an encoding a text may have any bytes. In one with another encoding than
# UTF-8 it may have characters that UTF-8 lacks.
STATE = """
    SELECT length, CASE WHEN length <= $3 THEN text END AS text,
           encode(sha256(convert_to(
               CASE WHEN ignored_keys <> '{}' AND left(state, 1) = '{'
                    THEN (state::jsonb - ignored_keys)::text ELSE text END,
               getdatabaseencoding())), 'hex') AS etag
      FROM (SELECT *, octet_length(text) AS length
              FROM (SELECT *, CASE WHEN getdatabaseencoding() IN ('UTF8', 'SQL_ASCII')
                                   THEN state ELSE brain.repaired(state) END AS text
                      FROM (SELECT f.ignored_keys, brain.feed(f.name, $2) AS state
                              FROM brain.feeds f
                             WHERE f.name = $1 AND f.takes_argument = ($2::text IS NOT NULL)
                            OFFSET 0) result OFFSET 0) with_text OFFSET 0) with_length
"""


@dataclass(frozen=True, slots=True)
class FeedDefinition:
    """A row of brain.feeds, as the SQL function brain.define_feed documents it."""

    name: str
    query: str
    channels: tuple[str, ...]
    takes_argument: bool
    argument_is_key: bool
    ignored_keys: tuple[str, ...]
    argument_claim: str | None = None
    """The claim of the client's token that the argument comes from; None: from the URL."""


def is_possible(argument: str | None) -> bool:
    """Return False for what PostgreSQL or the length limit rejects."""
    return argument is None or (len(argument) <= LONGEST_ARGUMENT and "\0" not in argument)


class FeedReader:
    """
    Reads feeds, over connections that the pool lends for one query each.

    Of a feed one query runs at a time, whatever its argument, and one more of those arguments that
    are slow.
    """

    def __init__(
        self,
        pool: asyncpg.Pool,
        most_bytes: int,
        timeout_seconds: float,
        problems: Problems | None = None,
        on_query: NoteSeconds = ignore,
    ) -> None:
        """`timeout_seconds` are those of a query, and `on_query` is called for each."""
        self._on_query = on_query
        self._pool = pool
        self._most_bytes = most_bytes
        self.timeout_seconds = timeout_seconds
        self.problems = problems or Problems()
        self._lanes = Lanes(timeout_seconds, WAIT_QUERIES * timeout_seconds)
        self._shared: SingleFlight[tuple[str, str | None], FeedState | None] = SingleFlight("feed")

    async def definitions(self) -> dict[str, FeedDefinition]:
        """Return all feeds, by name."""
        records = await self._pool.fetch(DEFINITIONS, timeout=self.timeout_seconds)
        return {
            record["name"]: FeedDefinition(
                record["name"],
                record["query"],
                tuple(record["channels"]),
                record["takes_argument"],
                record["argument_is_key"],
                tuple(record["ignored_keys"]),
                record["argument_claim"],
            )
            for record in records
        }

    async def state(
        self, name: str, argument: str | None, is_wanted: Callable[[], bool] = lambda: True
    ) -> FeedState | None:
        """
        Return the present state of a feed; None if there is no such feed.

        It is not queried, and None as well, if it is no longer wanted when its turn comes.

        Raises `SnapshotTooLarge`, and `LogUnavailable` for a query that fails.
        """
        if not is_possible(argument):
            return None
        query = partial(self._query, name, argument, is_wanted)
        try:
            record = await self._lanes.run([(name, argument)], query, group=name)
        except (QueryFailed, TooSlow) as error:
            text = f"the feed {name} cannot be read: {reason(error)}"
            self.problems.report(f"feed {name}", text)
            raise unavailable(f"the feed {name}", error) from error
        except DATABASE_ERRORS as error:
            self.problems.report(
                f"feed {name}", f"the feed {name} cannot be read: {explain(error)}"
            )
            raise LogUnavailable("the database cannot be reached, try again later") from error
        if record is None:
            return None
        if record["text"] is None:
            raise SnapshotTooLarge(
                # It has to fit into a close frame, whatever the name.
                f"the feed {name} has {record['length']} bytes"
                f" (BRAIN_SNAPSHOT_BYTES={self._most_bytes})"
            )
        return FeedState(record["text"], record["etag"])

    async def shared_state(self, name: str, argument: str | None) -> FeedState | None:
        """Return what `state` does, with one query for all callers at the same time."""
        return await self._shared.run((name, argument), partial(self.state, name, argument))

    async def _query(
        self,
        name: str,
        argument: str | None,
        is_wanted: Callable[[], bool],
        seconds: float,
    ) -> asyncpg.Record | None:
        if not is_wanted():
            return None
        async with self._pool.acquire(timeout=self.timeout_seconds) as connection:
            with concerning((name, argument), seconds):
                async with (
                    as_reader(connection) as session,
                    session.limited(seconds, TRY_LOCK_SECONDS),
                ):
                    fetching = connection.fetchrow(
                        STATE, name, argument, self._most_bytes, timeout=seconds + GRACE_SECONDS
                    )
                    return await timed(fetching, self._on_query)
