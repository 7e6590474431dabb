"""What a client frame asks for. A wire format parses it; the session carries it out."""

from __future__ import annotations

from dataclasses import dataclass

from brain.message.condition import EVERYTHING, Condition
from brain.message.error_codes import ErrorCode
from brain.message.matching import Filter
from brain.message.page import MOST_ROWS

RequestId = str | None
"""By which a client recognises the answer to a frame, where its format has that."""


@dataclass(frozen=True, slots=True)
class Reply:
    """Send a text back to this client."""

    text: str


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Subscribe to a channel or a part of it, and confirm."""

    name: str
    """Of a channel, or of one row of it, as in `tasks:task-123`."""
    where: Filter = ()
    conflates: bool = False
    """While the client lags, superseded messages may be skipped."""


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """End a subscription, and confirm."""

    name: str
    where: Filter = ()


@dataclass(frozen=True, slots=True)
class OpenSubscription:
    """Subscribe to a topic, under a number that the answer names."""

    id: str
    channel: str
    key: str | None
    """The name of a row in topics; None: all rows."""
    where: Condition = EVERYTHING
    """Its columns have no types yet."""
    has_number_strings: bool = False
    wants_snapshot: bool = False
    """It gets the rows of the table when it comes without a cursor, and after a reset."""
    is_exact: bool = False
    """They are those of one moment."""
    page_rows: int = MOST_ROWS
    """Otherwise, how many of them are read at one moment."""
    after: str | None = None
    """The text of a cursor: it gets everything since then first."""
    since_seconds: float | None = None
    """It gets everything of the last so many seconds first, and then the rows if it wants them."""
    key_json: str | None = None
    """The key as the client wrote it."""


@dataclass(frozen=True, slots=True)
class CloseSubscription:
    """End the subscription with a number, and confirm."""

    id: str
    sub: int


@dataclass(frozen=True, slots=True)
class Publish:
    """Publish a message, if the client may, and confirm."""

    id: str
    channel: str
    type: str
    data: str
    """JSON."""
    recipient: str | None


@dataclass(frozen=True, slots=True)
class AwaitTransaction:
    """Answer once the client was sent all that a transaction has for it."""

    id: str
    transaction_id: int


@dataclass(frozen=True, slots=True)
class SetPresence:
    """Publish the presence of the client's user."""

    status: str
    id: RequestId = None


@dataclass(frozen=True, slots=True)
class Reauthenticate:
    """Go on with another token of the same user, and confirm."""

    token: str
    id: RequestId = None


@dataclass(frozen=True, slots=True)
class Refuse:
    """Answer that the frame is malformed or not allowed."""

    reason: str
    code: ErrorCode = "malformed"
    id: RequestId = None


@dataclass(frozen=True, slots=True)
class Reauthorize:
    """Find out again what the client may read. Brain's own: no client asks for it."""


@dataclass(frozen=True, slots=True)
class RebindFilters:
    """Look the types of the columns of channels up again. Brain's own: no client asks for it."""

    channels: frozenset[str]


Command = (
    Reply
    | Subscribe
    | Unsubscribe
    | OpenSubscription
    | CloseSubscription
    | Publish
    | AwaitTransaction
    | SetPresence
    | Reauthenticate
    | Refuse
    | Reauthorize
    | RebindFilters
)
