"""All sessions of this process."""

from __future__ import annotations

import time
from itertools import islice
from typing import Protocol
from uuid import UUID

from brain.close_codes import CloseCode
from brain.presence.tracker import ClientInfo, PresenceTracker
from brain.session.session_counts import SessionCounts


class Registered(Protocol):
    """What the registry needs of a session."""

    @property
    def client(self) -> ClientInfo: ...

    @property
    def going_away_code(self) -> CloseCode:
        """The close code for when the server stops."""
        ...

    @property
    def client_timeout_seconds(self) -> float | None:
        """How long the client may send nothing; None: for ever."""
        ...

    @property
    def received_at(self) -> float:
        """When it sent something last, by `time.monotonic()`."""
        ...

    def close(self, code: CloseCode, reason: str) -> None: ...

    def settings_changed(self) -> None:
        """Go by other limits; close if the key of the token was withdrawn."""
        ...

    def rest(self, now: float) -> None:
        """Give up what only a client needs that has just sent something."""
        ...

    def reauthorize(self) -> None:
        """Find out again what the client may read."""
        ...

    def rebind_filters(self, channels: frozenset[str]) -> None:
        """Look up again what filters on these channels mean."""
        ...


class SessionRegistry:
    """Finds sessions by their user, and those with a silent client."""

    def __init__(self, presence: PresenceTracker) -> None:
        self.presence = presence
        self.counts = SessionCounts()
        self._open: dict[UUID, Registered] = {}
        self.changes = 0
        """How often what clients may read, or what filters mean, has changed, or may have."""

    def add(self, session: Registered) -> None:
        self._open[session.client.connection_id] = session
        self.presence.add(session.client)

    def remove(self, session: Registered) -> None:
        """Remove a session; may be called again."""
        if self._open.pop(session.client.connection_id, None) is not None:
            self.presence.remove(session.client)

    def revoke(self, user: str) -> None:
        """Close all sessions of `user`."""
        for session in [one for one in self._open.values() if one.client.user == user]:
            session.close(CloseCode.TOKENS_REVOKED, "the tokens of this user have been revoked")

    @property
    def count(self) -> int:
        """How many sessions are open."""
        return len(self._open)

    def close_oldest(self, count: int, reason: str) -> None:
        """Close the sessions that began first, because the server stops."""
        for session in list(islice(self._open.values(), count)):
            session.close(session.going_away_code, reason)

    def settings_changed(self) -> None:
        """Have all sessions go by other limits and keys."""
        for session in list(self._open.values()):
            session.settings_changed()

    def reauthorize(self, channels: frozenset[str] | None = None) -> None:
        """Have sessions find out again what they may read: those on `channels`, or all."""
        self.changes += 1
        for session in list(self._open.values()):
            if channels is None or not channels.isdisjoint(session.client.channels):
                session.reauthorize()

    def rebind_filters(self, channels: frozenset[str]) -> None:
        """Have sessions look up again what filters on these channels mean."""
        self.changes += 1
        for session in list(self._open.values()):
            session.rebind_filters(channels)

    def close_silent(self) -> None:
        """Close every session with a client that has sent nothing for too long; others rest."""
        now = time.monotonic()
        for session in list(self._open.values()):
            seconds = session.client_timeout_seconds
            if seconds is not None and session.received_at < now - seconds:
                session.close(CloseCode.CLIENT_TIMEOUT, f"nothing was received for {seconds:g} s")
            else:
                session.rest(now)
