"""Which web pages may connect."""

from __future__ import annotations

from collections.abc import Sequence


def is_allowed_origin(origin: str | None, host: str | None, allowed: Sequence[str]) -> bool:
    """
    Return True if a page from `origin` may connect: of this host, or a listed origin.

    Every browser sends an origin; a client without one is no browser.
    """
    if origin is None:
        return True
    if origin in allowed:
        return True
    scheme, separator, rest = origin.partition("://")
    return bool(separator) and scheme in ("http", "https") and rest == host and bool(host)
