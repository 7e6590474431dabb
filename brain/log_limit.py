"""Clients must not be able to fill the disk with lines of the log."""

from __future__ import annotations

import time

BETWEEN_LINES_SECONDS = 60.0
# In that time. A client may be able to make up kinds.
MOST_KINDS = 100


class LogLimit:
    """Allows a line of each kind once a minute, and lines of a hundred kinds at most."""

    def __init__(self) -> None:
        self._logged_at: dict[str, float] = {}
        """By `time.monotonic()`."""

    def allows(self, kind: str) -> bool:
        """Return True if a line of this kind may be logged now, and count it then."""
        now = time.monotonic()
        recent = {k: at for k, at in self._logged_at.items() if at > now - BETWEEN_LINES_SECONDS}
        self._logged_at = recent
        if kind in recent or len(recent) >= MOST_KINDS:
            return False
        recent[kind] = now
        return True
