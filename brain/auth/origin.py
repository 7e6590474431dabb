"""Which web pages may connect; the operator learns from the log which may not."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Sequence

from brain.auth.refusals import LONGEST_SHOWN, Refusals
from brain.settings import normal_origin

ANY_PORT = ":*"
PORT = re.compile(r":[0-9]{1,5}$")

REFUSED = "this origin is not allowed: see BRAIN_ALLOWED_ORIGINS"

logger = logging.getLogger(__name__)


class Origins:
    """Decides which pages may connect, and logs those that may not."""

    def __init__(self, allowed: Sequence[str] = ()) -> None:
        self.allowed = allowed
        self._refusals = Refusals(logger)

    def allows(self, origin: str | None, host: str | None) -> bool:
        """Return True if a page from `origin` may connect; log it otherwise."""
        if is_allowed_origin(origin, host, self.allowed):
            return True
        self._refusals.warn(
            str(origin)[:LONGEST_SHOWN],
            "Origin refused: set BRAIN_ALLOWED_ORIGINS to admit pages of %s;"
            f" the request has {'no Host' if host is None else 'the Host %s'}",
            *((origin,) if host is None else (origin, host)),
        )
        return False


def is_allowed_origin(origin: str | None, host: str | None, allowed: Collection[str]) -> bool:
    """
    Return True if a page from `origin` may connect: of this host, or a listed origin.

    Every browser sends an origin; a client without one is no browser.
    """
    if origin is None or is_listed(origin, allowed):
        return True
    scheme = origin.partition("://")[0]
    if scheme not in ("http", "https") or not host:
        return False
    # A proxy may name the default port, which no browser does.
    return origin == normal_origin(f"{scheme}://{host}")


def is_listed(origin: str, allowed: Collection[str]) -> bool:
    """Return True if `allowed` has an origin, or has it with any port."""
    return origin in allowed or PORT.sub("", origin) + ANY_PORT in allowed
