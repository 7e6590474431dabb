"""Which web pages may connect; the operator learns from the log which may not."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Sequence

from brain.settings import normal_origin

# Clients must not be able to fill the disk with warnings: one per origin in this time, and not more
# than this many altogether.
BETWEEN_WARNINGS_SECONDS = 60.0
MOST_WARNINGS = 100
LONGEST_SHOWN = 200

logger = logging.getLogger(__name__)


class Origins:
    """Decides which pages may connect, and logs those that may not."""

    def __init__(self, allowed: Sequence[str] = ()) -> None:
        self.allowed = allowed
        self._warned_at: dict[str, float] = {}
        """By `time.monotonic()`, the oldest first."""

    def allows(self, origin: str | None, host: str | None) -> bool:
        """Return True if a page from `origin` may connect; log it otherwise."""
        if is_allowed_origin(origin, host, self.allowed):
            return True
        self._warn(str(origin)[:LONGEST_SHOWN], host)
        return False

    def _warn(self, origin: str, host: str | None) -> None:
        now = time.monotonic()
        recent = {o: at for o, at in self._warned_at.items() if at > now - BETWEEN_WARNINGS_SECONDS}
        self._warned_at = recent
        if origin in recent or len(recent) >= MOST_WARNINGS:
            return
        recent[origin] = now
        named = "no Host" if host is None else f"the Host {host[:LONGEST_SHOWN]!r}"
        logger.warning(
            "Origin refused: set BRAIN_ALLOWED_ORIGINS to admit pages of %r; the request has %s",
            origin,
            named,
        )


def is_allowed_origin(origin: str | None, host: str | None, allowed: Collection[str]) -> bool:
    """
    Return True if a page from `origin` may connect: of this host, or a listed origin.

    Every browser sends an origin; a client without one is no browser.
    """
    if origin is None:
        return True
    if origin in allowed:
        return True
    scheme = origin.partition("://")[0]
    if scheme not in ("http", "https") or not host:
        return False
    # A proxy may name the default port, which no browser does.
    return origin == normal_origin(f"{scheme}://{host}")
