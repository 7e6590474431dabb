"""What all sessions have in common: limits, expiry of the token, the end."""

from __future__ import annotations

import asyncio
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields
from uuid import uuid4

from brain.auth.identity import Identity
from brain.auth.policy import Authority
from brain.close_codes import CloseCode
from brain.errors import AccessUndecided, ConnectionEnded
from brain.message.condition import Condition
from brain.message.condition_binding import untyped
from brain.message.matching import ReadAccess, Topic
from brain.presence.tracker import ClientInfo
from brain.problems import Problems
from brain.session.admission import Admitted
from brain.session.connection_log import ClosedConnection, ConnectionLog
from brain.session.json_depth import is_deeper
from brain.session.rate_limiter import RESTED_SECONDS, RateLimiter
from brain.session.registry import SessionRegistry
from brain.session.session_counts import ABNORMAL


@dataclass(slots=True)
class SessionLimits:
    """What one client may do, whatever its transport; all sessions share them."""

    max_message_bytes: int
    max_message_depth: int
    max_subscriptions: int
    messages_per_second: float
    bytes_per_second: float

    def become(self, other: SessionLimits) -> None:
        """Go on with other limits."""
        for each in fields(self):
            setattr(self, each.name, getattr(other, each.name))


KEY_WITHDRAWN = "the key of the token has been withdrawn"

# When it is tried to find out what a client may read, each after the one before.
RETRY_SECONDS = (0.0, 0.5, 1.0, 2.0)


async def accept_any(_: Iterable[Topic]) -> None:
    """Refuse no filter: the columns of tables are not known."""


async def bind_untyped(channel: str, condition: Condition) -> Condition:
    """Bind a condition without a database: no table is known."""
    return untyped(channel, condition)


def no_columns(_: str) -> Sequence[str] | None:
    """Know the columns of no channel."""
    return None


@dataclass(frozen=True, slots=True)
class SessionContext:
    """What all sessions of a process share."""

    authority: Authority
    registry: SessionRegistry
    limits: SessionLimits
    leeway_seconds: float
    """For how long an expired token is still good."""
    heartbeat_seconds: float = 20.0
    """After how long a stream that is catching up is kept alive."""
    refuse_filters: Callable[[Iterable[Topic]], Awaitable[str | None]] = accept_any
    """Returns why the filter of a topic can never match, if so."""
    bind_filter: Callable[[str, Condition], Awaitable[Condition]] = bind_untyped
    """
    Returns a condition with the types of the columns of a channel.

    Raises `FilterRefused` and `LogUnavailable`.
    """
    problems: Problems = field(default_factory=Problems)
    """What gets the events that cannot be rendered."""
    columns_of: Callable[[str], Sequence[str] | None] = no_columns
    """Returns the watched columns of the table on a channel; None: no table is known."""
    connection_log: ConnectionLog = field(default_factory=ConnectionLog)


class Session(ABC):
    """
    One client, from its admission to its end. A transport calls it as `Receiver` has it.

    A session has a task only while it waits for something: the log, the tables, or a decision
    about access. Otherwise the hub writes to its transport, and the transport calls it when the
    client sends something.
    """

    __slots__ = (
        "_changes",
        "_client_address",
        "_context",
        "_counted",
        "_expiry",
        "_identity",
        "_is_open",
        "_opened_at",
        "_rate_limiter",
        "_transport",
        "client",
        "received_at",
    )

    def __init__(
        self,
        admitted: Admitted,
        context: SessionContext,
        *,
        is_listed: bool = False,
        changes: int | None = None,
    ) -> None:
        """
        `is_listed`: others may see the id of this connection.

        `changes`: those of the registry before it was decided what the client may read; None: now.
        """
        self._transport = admitted.transport
        self._identity = admitted.identity
        self._counted = admitted.counted
        self._context = context
        self._changes = context.registry.changes if changes is None else changes
        self._expiry: asyncio.TimerHandle | None = None
        self._rate_limiter: RateLimiter | None = None
        self._is_open = False
        self.client = ClientInfo(uuid4(), admitted.identity.user, is_listed, frozenset())
        self.received_at = self._opened_at = time.monotonic()
        self._client_address = admitted.address if context.connection_log.has_addresses else None

    @property
    @abstractmethod
    def format_name(self) -> str:
        """The name of the wire format that the client is spoken to in."""

    @property
    def client_timeout_seconds(self) -> float | None:
        return None

    @property
    def going_away_code(self) -> CloseCode:
        return CloseCode.SERVICE_RESTART

    def open(self) -> None:
        """Begin; closes the connection if that is impossible."""
        # Both may have happened while it was being admitted.
        if self._context.authority.is_withdrawn(self._identity):
            self.close(CloseCode.TOKEN_EXPIRED, KEY_WITHDRAWN)
            return
        if self._context.authority.is_revoked(self._identity):
            self.close(CloseCode.TOKENS_REVOKED, "the tokens of this user have been revoked")
            return
        self._is_open = True
        self._context.registry.counts.begin(self.format_name, self._transport.framing.name)
        self._schedule_expiry()
        try:
            self._start()
        except ConnectionEnded as reason:
            self.end(reason)
        except BaseException:
            self.connection_lost(CloseCode.INTERNAL_ERROR)
            raise
        if self._is_open and self._changes != self._context.registry.changes:
            self.reauthorize()
            self.rebind_filters(self.client.channels)

    def message_received(self, message: str | bytes) -> None:
        """Handle a message of the client, within its limits."""
        if not self._is_open:
            return
        self.received_at = time.monotonic()
        size = size_bytes(message)
        if size > self._context.limits.max_message_bytes:
            self.close(CloseCode.MESSAGE_TOO_BIG, "the message is too long")
        elif isinstance(message, bytes):
            self.close(CloseCode.UNSUPPORTED_DATA, "text messages only")
        elif is_deeper(message, self._context.limits.max_message_depth):
            self.close(CloseCode.NESTED_TOO_DEEPLY, "nested too deeply")
        else:
            limiter = self._rate_limiter
            if limiter is None:  # one that never sends anything needs none
                limits = self._context.limits
                limiter = RateLimiter(limits.messages_per_second, limits.bytes_per_second)
                self._rate_limiter = limiter
            if not limiter.allows(size, self.received_at):
                self.close(CloseCode.RATE_LIMITED, "rate limit exceeded")
                return
            if limiter.is_warning_due:
                self._warn_of_rate()
            self._text_received(message)

    def settings_changed(self) -> None:
        """Go by other limits; close if the key of the token was withdrawn."""
        self._rate_limiter = None
        if self._context.authority.is_withdrawn(self._identity):
            self.close(CloseCode.TOKEN_EXPIRED, KEY_WITHDRAWN)

    def rest(self, now: float) -> None:
        """Give up what only a client needs that has just sent something; see `received_at`."""
        if self._rate_limiter is not None and self.received_at <= now - RESTED_SECONDS:
            self._rate_limiter = None

    @abstractmethod
    def pause_writing(self) -> None:
        """Stop writing until the client has read what was written."""

    @abstractmethod
    def resume_writing(self) -> None:
        """Go on writing."""

    def connection_lost(self, code: int = ABNORMAL) -> None:
        """Clean up; may be called again. `code` is the close code."""
        if self._is_open:
            self._is_open = False
            self._stop()
            self._clean_up()
            # A log that cannot be written must leave nothing behind that is sent to nobody.
            framing = self._transport.framing.name
            self._context.registry.counts.end(self.format_name, framing, code)
            if self._context.connection_log.note(code):
                self._context.connection_log.write(self._closed(code))
        else:
            self._clean_up()

    def _clean_up(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
        self._context.registry.remove(self)
        self._counted.release()

    def _closed(self, code: int) -> ClosedConnection:
        return ClosedConnection(
            code=code,
            seconds=time.monotonic() - self._opened_at,
            sent_bytes=self._transport.sent_bytes(),
            transport=self._transport.framing.transport,
            wire_format=self.format_name,
            user=self._identity.user,
            channels=len(self.client.channels),
            address=self._client_address,
        )

    def close(self, code: CloseCode, reason: str) -> None:
        """Close the connection."""
        self.connection_lost(code)
        self._transport.close(code, reason)

    def end(self, reason: ConnectionEnded) -> None:
        """Close the connection with the code of an error."""
        self.close(reason.close_code, str(reason))

    @abstractmethod
    def reauthorize(self) -> None:
        """Find out again what the client may read, after a rule has changed."""

    def rebind_filters(self, channels: frozenset[str]) -> None:  # noqa: B027
        """Look up again what filters on these channels mean, if it has such filters."""

    @abstractmethod
    def _start(self) -> None:
        """Register the session, and begin to send. Raises `ConnectionEnded`."""

    @abstractmethod
    def _text_received(self, text: str) -> None:
        """Handle a text of the client, which is within its limits."""

    @abstractmethod
    def _stop(self) -> None:
        """Give up everything that was begun; called once."""

    async def _read_access(self, names: Sequence[str]) -> ReadAccess | None:
        """Return what the client may read; None, and close, if that cannot be decided for long."""
        reason = ""
        for seconds in RETRY_SECONDS:
            await asyncio.sleep(seconds)
            try:
                return await self._context.authority.read_access(self._identity, names)
            except AccessUndecided as error:
                reason = str(error)
        self.close(CloseCode.LOG_UNAVAILABLE, reason)
        return None

    def _warn_of_rate(self) -> None:  # noqa: B027
        """Warn the client that it is about to exceed its rate limit, where its format can."""

    def _schedule_expiry(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
        seconds = self._identity.expires_at + self._context.leeway_seconds - time.time()
        if seconds < math.inf:
            self._expiry = asyncio.get_running_loop().call_later(
                max(0.0, seconds), self.close, CloseCode.TOKEN_EXPIRED, "the token has expired"
            )

    def _become(self, identity: Identity) -> None:
        """Go on with another identity, which has expiry and rights of its own."""
        self._identity = identity
        self._schedule_expiry()


def size_bytes(message: str | bytes) -> int:
    """Return the size of a message, of text in UTF-8."""
    if isinstance(message, bytes) or message.isascii():
        return len(message)
    return len(message.encode())
