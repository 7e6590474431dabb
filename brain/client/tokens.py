"""Where the token of a client comes from, and when it has to be renewed."""

from __future__ import annotations

import inspect
import time
from collections.abc import Awaitable, Callable

import jwt

TokenSource = str | Callable[[], str | Awaitable[str | None] | None] | None

# A token is renewed when this part of its life is left, but not earlier than so many seconds.
RENEWED_PART = 0.2
LONGEST_LEAD_SECONDS = 60.0
# The server's clock may be ahead by so much.
CLOCK_SKEW_SECONDS = 30.0


class Tokens:
    """Asks for tokens."""

    def __init__(self, source: TokenSource) -> None:
        self._source = source
        self.is_fixed = not callable(source)
        """True if there is no other token to be had."""
        self._latest: str | None = None

    async def ask(self) -> str | None:
        """Return the present token; raises what the callable raises."""
        token = self._source() if callable(self._source) else self._source
        self._latest = await token if inspect.isawaitable(token) else token
        return self._latest

    @property
    def has_expired(self) -> bool:
        """Return True if the token that was returned last is one of the past."""
        return self._ends_before(time.time())

    @property
    def may_have_expired(self) -> bool:
        """Return True if that token is one of the past by the server's clock, perhaps."""
        return self._ends_before(time.time() + CLOCK_SKEW_SECONDS)

    def _ends_before(self, moment: float) -> bool:
        at = None if self._latest is None else expires_at(self._latest)
        return at is not None and at <= moment


def expires_at(token: str) -> float | None:
    """Return the claim `exp`, if the token can be read and has one."""
    try:
        claims = jwt.decode(token, options={"verify_signature": False})
        return float(claims["exp"])
    except (jwt.InvalidTokenError, KeyError, TypeError, ValueError):
        return None


def renewal_seconds(token: str | None) -> float:
    """Return in how many seconds a token has to be renewed; infinity if it does not expire."""
    at = None if token is None else expires_at(token)
    if at is None:
        return float("inf")
    left = max(at - time.time(), 0.0)
    return left - min(left * RENEWED_PART, LONGEST_LEAD_SECONDS)
