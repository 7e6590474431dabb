"""Users whose tokens are not good any more, although they have not expired."""

from __future__ import annotations

from datetime import datetime

from brain.database.connection import Queryable
from brain.message.event import Batch, Operation

CHANNEL = "brain.revocations"
TYPE = "revoked"


class Revocations:
    """
    Remembers who was revoked, and when; the SQL function brain.revoke is what does it.

    What is loaded once the listener follows the log, together with all its batches from there on,
    is everything. After a batch that does not follow the one before, it has to be loaded again.

    Nothing is forgotten: it is not known here how long a token may live.
    """

    def __init__(self) -> None:
        self._revoked_at: dict[str, float] = {}
        """In seconds since the epoch, by the clock of the database."""

    async def load(self, database: Queryable) -> None:
        """Read who was revoked so far."""
        for row in await database.fetch("SELECT user_id, revoked_at FROM brain.revocations"):
            self._remember(row["user_id"], row["revoked_at"])

    def take(self, batch: Batch) -> list[str]:
        """Remember whom `batch` revokes, and return them, each once."""
        users: dict[str, None] = {}
        for event in batch.events:
            if (event.channel, event.type, event.operation) == (CHANNEL, TYPE, Operation.PUBLISH):
                user: str = event.data["user"]
                self._remember(user, event.at)
                users[user] = None
        return list(users)

    def is_revoked(self, user: str, issued_at: float | None) -> bool:
        """
        Whether a token of `user` is refused: one that was issued until the revocation.

        `issued_at` is the claim `iat`, in seconds since the epoch; without it there is no telling
        that the token came later.
        """
        revoked_at = self._revoked_at.get(user)
        return revoked_at is not None and (issued_at is None or not issued_at > revoked_at)

    def _remember(self, user: str, at: datetime) -> None:
        self._revoked_at[user] = max(at.timestamp(), self._revoked_at.get(user, 0.0))


async def revoke(database: Queryable, user: str, reason: str | None = None) -> None:
    """Take from `user` whatever the tokens allow that were issued until now, on all nodes."""
    await database.execute("SELECT brain.revoke($1, $2)", user, reason)
