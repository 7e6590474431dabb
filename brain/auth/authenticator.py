"""Authentication by the application that Brain is mounted in, instead of by tokens of Brain's."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from starlette.requests import HTTPConnection

from brain.auth.identity import Identity, patterns
from brain.auth.token_verifier import seconds, storable, user_in
from brain.errors import AccessUndecided, TokenRefused
from brain.log_events import AUTHENTICATOR_FAILED, AUTHENTICATOR_TIMED_OUT
from brain.log_limit import LimitedLog
from brain.settings import Settings

Connection = HTTPConnection
"""A request or a WebSocket handshake."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Authenticated:
    """Who a client is, until when, and what it may do."""

    user: str
    """1 to 255 characters."""
    channels: Sequence[str] | None = None
    """Patterns of the channels that it may read: `*` stands for any text, `?` for a character.
    None: BRAIN_DEFAULT_CHANNELS."""
    publish: Sequence[str] = ()
    """Patterns of the channels that it may publish on."""
    expires_at: datetime | float | None = None
    """When its connections are closed with 4401, with a time zone or in seconds since the epoch;
    None: never."""
    claims: Mapping[str, Any] = field(default_factory=dict)
    """What row rules, feeds and brain.may_read find in a token: JSON. `sub` is the user. `iat`, in
    seconds since the epoch, is when the session began, if revocations are to hold for it."""


class Authenticator(Protocol):
    """What an application passes to `create_app`."""

    async def __call__(
        self, connection: Connection | None, token: str | None, /
    ) -> Authenticated | None:
        """
        Return who a client is; None if it is not known.

        `connection` has the headers, cookies and query of a request or a WebSocket handshake, as
        the client sent them: nothing of it is checked but its `Host` and `Origin`. It is None for a
        `token` that comes over an open WebSocket, or out of a ticket. `token` is that of
        `Authorization: Bearer`, of the subprotocol, or of the query, if there is one.

        A client without a token that is not known is anonymous, one with a token is refused. An
        exception is logged, and the client is refused with 503.
        """
        ...


async def authenticated(
    authenticator: Authenticator,
    connection: Connection | None,
    token: str | None,
    settings: Settings,
    log: LimitedLog,
) -> Identity | None:
    """Return who an authenticator says a client is. Raises `AccessUndecided`."""
    try:
        async with asyncio.timeout(settings.handshake_timeout_seconds):
            found = await authenticator(connection, token)
        return None if found is None else identity_of(found, settings)
    except Exception as error:
        if isinstance(error, TimeoutError):
            seconds = settings.handshake_timeout_seconds
            text = "the authenticator has not answered within %g s"
            log.log(AUTHENTICATOR_TIMED_OUT, "", text, seconds, timeout_seconds=seconds)
        else:
            kind, text = type(error).__name__, "the authenticator failed"
            log.log(AUTHENTICATOR_FAILED, kind, text, error=error)
        raise AccessUndecided("it cannot be decided who you are, try again later") from error


def identity_of(found: Authenticated, settings: Settings) -> Identity:
    """Return the identity of an authenticated client. Raises `ValueError`."""
    expires_at = found.expires_at
    if isinstance(expires_at, datetime):
        if expires_at.tzinfo is None:
            raise ValueError("expires_at has no time zone")
        expires_at = expires_at.timestamp()
    claims = {"iat": time.time(), **found.claims}
    try:
        seconds(claims["iat"])  # revocations compare it
        user = user_in({"sub": found.user}, ("sub",))
        channels = None if found.channels is None else listed(found.channels)
        return Identity(
            user,
            math.inf if expires_at is None else seconds(expires_at),
            readable=patterns(channels, settings.default_channels),
            publishable=patterns(listed(found.publish), ()),
            claims=storable({**claims, "sub": user}),
        )
    except TokenRefused as refusal:
        raise ValueError(f"not what Authenticated has: {found!r}") from refusal


def listed(names: Sequence[str]) -> str | list[str]:
    return names if isinstance(names, str) else list(names)
