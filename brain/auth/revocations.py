"""Revoked tokens: all of a user's that were issued until then, expired or not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime

from brain.database.backoff import delays
from brain.database.connection import DATABASE_ERRORS, Queryable, explain
from brain.message.event import Batch, Operation
from brain.problems import Problems

REVOCATIONS_CHANNEL = "brain.revocations"
TYPE = "revoked"


def ignore(user: str) -> None:
    """Do nothing when a user is revoked."""


class Revocations:
    """
    Knows which users were revoked, and when; the SQL function brain.revoke revokes one.

    What `load` reads while the log is followed, plus every later batch, is complete.
    After a batch that does not follow the one before, it has to be loaded again.

    Nothing is dropped: how long a token may live is not known here.
    """

    def __init__(
        self,
        on_revoke: Callable[[str], None] = ignore,
        problems: Problems | None = None,
        leeway_seconds: float = 0.0,
    ) -> None:
        """
        `on_revoke` is called with each user of whom a batch, or loading, has a later revocation.

        The clock of who issues tokens may be ahead by `leeway_seconds`.
        """
        self._on_revoke = on_revoke
        self._leeway_seconds = leeway_seconds
        self._is_loaded = False
        self._problems = problems or Problems()
        self._database: Queryable | None = None
        self._revoked_at: dict[str, float] = {}
        """In seconds since the epoch, by the clock of the database."""

    @property
    def are_known(self) -> bool:
        """False while a token may be revoked and this is not known: none may be accepted."""
        return self._is_loaded or self._database is None

    def connect(self, database: Queryable) -> None:
        """Load from `database` from now on."""
        self._database = database

    async def load_again(self) -> None:
        """Load, however long that takes: before it is done no client may be served."""
        assert self._database is not None
        for seconds in delays():
            try:
                await self.load(self._database)
            except DATABASE_ERRORS as error:
                self._problems.report(
                    "revocations", f"cannot read the revoked tokens: {explain(error)}"
                )
                await asyncio.sleep(seconds)
            else:
                return

    async def load(self, database: Queryable) -> None:
        """Read which users were revoked so far, and report those of whom that was not known."""
        before = dict(self._revoked_at)
        for row in await database.fetch("SELECT user_id, revoked_at FROM brain.revocations"):
            self._add(row["user_id"], row["revoked_at"])
        self._is_loaded = True
        for user in [u for u, at in self._revoked_at.items() if before.get(u) != at]:
            self._on_revoke(user)

    def deliver(self, batch: Batch) -> None:
        """Add the users that `batch` revokes, and report each once."""
        users: dict[str, None] = {}
        for event in batch.events:
            if event.channel == REVOCATIONS_CHANNEL and event.operation is Operation.PUBLISH:
                if event.type == TYPE:
                    user = event.row.string("user") if event.row is not None else None
                    if user is not None:
                        self._add(user, event.at)
                        users[user] = None
        for user in users:
            self._on_revoke(user)

    def is_revoked(self, user: str, issued_at: float | None) -> bool:
        """
        Return True for a token of `user` that may have been issued until the revocation.

        `issued_at` is the claim `iat`, in seconds since the epoch; a token without it may be older.
        """
        revoked_at = self._revoked_at.get(user)
        if revoked_at is None:
            return False
        return issued_at is None or not issued_at > revoked_at + self._leeway_seconds

    def _add(self, user: str, at: datetime) -> None:
        self._revoked_at[user] = max(at.timestamp(), self._revoked_at.get(user, 0.0))


async def revoke(database: Queryable, user: str, reason: str | None = None) -> None:
    """Revoke all tokens of `user` that were issued until now, on all nodes."""
    await database.execute("SELECT brain.revoke($1, $2)", user, reason)
