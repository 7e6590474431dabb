"""Who is here, for what has to be done to somebody wherever it is."""

from __future__ import annotations

import time
from typing import Protocol
from uuid import UUID

from brain.database.attendance import Attendance, Visit

SILENT, REVOKED = 4408, 4503


class Visitor(Protocol):
    """What can be done to a client."""

    @property
    def visit(self) -> Visit: ...

    @property
    def silence_seconds(self) -> float | None:
        """How long it may say nothing."""
        ...

    @property
    def heard_at(self) -> float:
        """When it said something last, by `time.monotonic()`."""
        ...

    def close(self, code: int, reason: str) -> None:
        """Say goodbye to it."""
        ...


class Visitors:
    """All clients of this process."""

    def __init__(self, attendance: Attendance) -> None:
        self.attendance = attendance
        self._inside: dict[UUID, Visitor] = {}

    def arrive(self, visitor: Visitor) -> None:
        self._inside[visitor.visit.connection_id] = visitor
        self.attendance.arrive(visitor.visit)

    def leave(self, visitor: Visitor) -> None:
        """Forget a visitor; may be called again."""
        if self._inside.pop(visitor.visit.connection_id, None) is not None:
            self.attendance.leave(visitor.visit)

    def revoke(self, user: str) -> None:
        """Send away whoever is here in the name of `user`."""
        for visitor in [one for one in self._inside.values() if one.visit.user == user]:
            visitor.close(REVOKED, "the user's tokens have been revoked")

    def dismiss_silent(self) -> None:
        """Send away who has said nothing for too long."""
        now = time.monotonic()
        for visitor in list(self._inside.values()):
            seconds = visitor.silence_seconds
            if seconds is not None and visitor.heard_at < now - seconds:
                visitor.close(SILENT, f"nothing was heard for {seconds:g} s")
