"""Which ends are for good, and what to do about them."""

from __future__ import annotations

from brain.client.errors import Closed
from brain.client.link import LinkLost

# Source: docs/protocol.md, "Close codes".
FIRST_CODE_FOR_GOOD = 4500
TOKEN_EXPIRED = 4401
ADVICE = {
    4500: "Read the rows from the database, or subscribe to fewer with where=…",
    4501: "Send something that is nested less deeply",
    4503: "Log in anew: the tokens of the user were revoked",
    4504: "Ask for the right to read the channel, or subscribe to less",
}
RETRIED = frozenset({"unavailable", "snapshot_unavailable", "too_many_connections"})


def is_retried(code: str) -> bool:
    """Return True if an `error` of this code may not come again."""
    return code in RETRIED


def closed_for_good(lost: LinkLost, *, is_fixed: bool) -> Closed | None:
    """Return the error for an end after which another attempt is useless."""
    if lost.code == TOKEN_EXPIRED and is_fixed:
        return token_expired()
    if lost.code is None or not FIRST_CODE_FOR_GOOD <= lost.code < 5000:
        return None
    return Closed(lost.why, code=lost.code, advice=ADVICE.get(lost.code))


def token_expired() -> Closed:
    """Return the error for a token that is given as a text, and is of no more use."""
    advice = "Give token= a callable that returns a new one"
    return Closed("the token has expired", code=TOKEN_EXPIRED, advice=advice)
