"""Which web pages may connect; the operator learns from the log which may not."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Sequence

from brain.auth.refusals import beginning, shown
from brain.log_events import ORIGIN_REFUSED
from brain.log_limit import LimitedLog
from brain.settings import normal_origin

ANY_PORT = ":*"
PORT = re.compile(r":[0-9]{1,5}$")

REFUSED = "this origin is not allowed: see BRAIN_ALLOWED_ORIGINS"

logger = logging.getLogger(__name__)


class Origins:
    """Decides which pages may connect, and logs those that may not."""

    def __init__(self, allowed: Sequence[str] = ()) -> None:
        self.allowed = allowed
        self._log = LimitedLog(logger)

    def allows(self, origin: str | None, host: str | None) -> bool:
        """Return True if a page from `origin` may connect; log it otherwise."""
        if is_allowed_origin(origin, host, self.allowed):
            return True
        origin, host = beginning(origin), beginning(host)
        text = "Origin refused: set BRAIN_ALLOWED_ORIGINS to admit pages of %s; the request has %s"
        named = "no Host" if host is None else f"the Host {shown(host)}"
        kind = str(origin)
        self._log.log(ORIGIN_REFUSED, kind, text, shown(origin), named, origin=origin, host=host)
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
