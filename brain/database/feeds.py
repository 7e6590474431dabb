"""Which feeds there are, and what their queries answer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import asyncpg

from brain.database.sharing import Shared
from brain.errors import SnapshotTooLarge
from brain.message.feed_state import FeedState

# Where definitions are announced.
CHANNEL = "brain.feeds"

LONGEST_ARGUMENT = 255

DEFINITIONS = """
    SELECT name, query, channels, takes_argument, argument_is_key, uncompared FROM brain.feeds
"""
# The subqueries are kept apart by OFFSET: each would be evaluated once for every use otherwise.
STATE = """
    SELECT length, CASE WHEN length <= $3 THEN text END AS text,
           encode(sha256(convert_to(
               CASE WHEN jsonb_typeof(state) = 'object' AND uncompared <> '{}'
                    THEN (state - uncompared)::text ELSE text END, 'UTF8')), 'hex') AS mark
      FROM (SELECT *, octet_length(text) AS length
              FROM (SELECT *, state::text AS text
                      FROM (SELECT f.uncompared, brain.feed(f.name, $2) AS state
                              FROM brain.feeds f
                             WHERE f.name = $1 AND f.takes_argument = ($2::text IS NOT NULL)
                            OFFSET 0) asked OFFSET 0) written OFFSET 0) measured
"""


@dataclass(frozen=True, slots=True)
class FeedDefinition:
    """A row of brain.feeds; the SQL function brain.define_feed says what all that means."""

    name: str
    query: str
    channels: tuple[str, ...]
    takes_argument: bool
    argument_is_key: bool
    uncompared: tuple[str, ...]


def is_possible(argument: str | None) -> bool:
    """Whether PostgreSQL takes it for a text, and it is no longer than an argument may be."""
    return argument is None or (len(argument) <= LONGEST_ARGUMENT and "\0" not in argument)


class FeedReader:
    """Asks the database about feeds, over connections that are lent for one question each."""

    def __init__(self, pool: asyncpg.Pool, most_bytes: int, timeout_seconds: float) -> None:
        self._pool = pool
        self._most_bytes = most_bytes
        self._timeout_seconds = timeout_seconds
        self._shared: Shared[tuple[str, str | None], FeedState | None] = Shared("feed")

    async def definitions(self) -> dict[str, FeedDefinition]:
        """Return all feeds by their names."""
        records = await self._pool.fetch(DEFINITIONS, timeout=self._timeout_seconds)
        return {
            record["name"]: FeedDefinition(
                record["name"],
                record["query"],
                tuple(record["channels"]),
                record["takes_argument"],
                record["argument_is_key"],
                tuple(record["uncompared"]),
            )
            for record in records
        }

    async def state(self, name: str, argument: str | None) -> FeedState | None:
        """
        Return a feed's state as it is now; None if there is no such feed.

        Raises `SnapshotTooLarge`, and whatever is wrong with the query as an
        `asyncpg.PostgresError`.
        """
        if not is_possible(argument):
            return None
        record = await self._pool.fetchrow(
            STATE, name, argument, self._most_bytes, timeout=self._timeout_seconds
        )
        if record is None:
            return None
        if record["text"] is None:
            raise SnapshotTooLarge(
                f"the state of the feed {name} has {record['length']} bytes, and"
                f" BRAIN_SNAPSHOT_BYTES allows {self._most_bytes}"
            )
        return FeedState(record["text"], record["mark"])

    async def shared_state(self, name: str, argument: str | None) -> FeedState | None:
        """Return what `state` does, asked once for all who want it at the same time."""
        return await self._shared.answer((name, argument), partial(self.state, name, argument))
