"""Who a client is, until when, and what it may read and publish."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from brain.errors import TokenRefused
from brain.message.matching import INTERNAL

Claims = Mapping[str, Any]
"""The claims of a token, as RFC 7519 and others name them."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a client is, until when, and what it may do."""

    user: str | None
    """None for an anonymous client."""
    expires_at: float
    """In seconds since the epoch, without the leeway."""
    readable: tuple[str, ...]
    """Patterns of channels: `*` stands for any text, `?` for a character."""
    publishable: tuple[str, ...]
    claims: Claims = field(default_factory=dict, repr=False)
    is_unlimited: bool = False
    """True for every client where no token is needed."""
    key: bytes | None = field(default=None, repr=False)
    """The fingerprint of the key that its token was signed with; None without such a token."""

    def may_read(self, channel: str) -> bool:
        return not channel.startswith(INTERNAL) and matches(channel, self.readable)

    def may_publish(self, channel: str) -> bool:
        return not channel.startswith(INTERNAL) and matches(channel, self.publishable)


def patterns(claim: Any, default: Sequence[str]) -> tuple[str, ...]:
    """Return the patterns in a claim: a list of strings, or one string with spaces."""
    if claim is None:
        return tuple(default)
    if isinstance(claim, str):
        return tuple(claim.split())
    if isinstance(claim, list) and all(isinstance(pattern, str) for pattern in claim):
        return tuple(claim)
    raise TokenRefused


def matches(channel: str, patterns: Sequence[str]) -> bool:
    # Brackets are special to fnmatch, and are literal here.
    return any(fnmatchcase(channel, pattern.replace("[", "[[]")) for pattern in patterns)
