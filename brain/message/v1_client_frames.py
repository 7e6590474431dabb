"""
What clients of brain.v1 send: the models from which its JSON Schema is made.

Source: docs/protocol.md, "brain.v1".
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from brain.message.page import MOST_ROWS

LONGEST_ID = 100
LONGEST_NAME = 255

Id = Annotated[str, Field(min_length=1, max_length=LONGEST_ID)]
"""By which the client recognises the answer."""
Name = Annotated[str, Field(min_length=1, max_length=LONGEST_NAME)]
Presence = Literal["online", "away", "busy", "offline"]


def as_float(value: Any) -> Any:
    """Return a float for a number that was parsed with all its digits, for the sake of filters."""
    return float(value) if isinstance(value, Decimal) else value


Seconds = Annotated[float, BeforeValidator(as_float), Field(gt=0, allow_inf_nan=False)]


class V1ClientFrame(BaseModel):
    """A client frame; a key that it does not have is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class SubscribeFrame(V1ClientFrame):
    """Begin a subscription; answered by `subscribed`."""

    type: Literal["subscribe"]
    id: Id
    channel: Name
    """The channel to subscribe to."""
    key: list[Any] | None = Field(default=None, min_length=1)
    """The primary key of one row; without it, all rows."""
    where: dict[str, Any] | None = None
    """The filter that a row must match."""
    snapshot: bool | Literal["exact"] = False
    """The rows of the table come first: page by page, or those of one moment."""
    limit: int | None = Field(default=None, ge=1, le=MOST_ROWS)
    """At most so many rows are read at one moment."""
    after: str | None = None
    """A cursor: what happened since then comes first."""
    since: Seconds | None = None
    """What happened in the last so many seconds comes first."""
    numbers: Literal["string"] | None = None
    """Numbers that a double does not hold come as strings."""


class UnsubscribeFrame(V1ClientFrame):
    """End a subscription; answered by `unsubscribed`."""

    type: Literal["unsubscribe"]
    id: Id
    sub: int = Field(ge=1)


class PublishFrame(V1ClientFrame):
    """Publish a message; answered by `published`."""

    type: Literal["publish"]
    id: Id
    channel: Name
    message_type: Name
    """The `type` of the message that subscribers get."""
    data: Any = None
    to: Name | None = None
    """The only user who gets it; without it, all subscribers."""


class AuthFrame(V1ClientFrame):
    """Go on with another token of the same user; answered by `authenticated`."""

    type: Literal["auth"]
    id: Id
    token: str = Field(min_length=1)


class PresenceFrame(V1ClientFrame):
    """Set the presence of the client's user; answered by `presence`."""

    type: Literal["presence"]
    id: Id
    status: Presence


class UntilFrame(V1ClientFrame):
    """Ask for an answer once all of a transaction has been sent: `until`."""

    type: Literal["until"]
    id: Id
    txid: str = Field(pattern=r"^[0-9]{1,20}$")
    """The 64-bit id of a transaction, as `pg_current_xact_id()` prints it."""


class PingFrame(V1ClientFrame):
    """Ask whether the connection is alive; answered by `pong`."""

    type: Literal["ping"]
    id: Id | None = None


class PongFrame(V1ClientFrame):
    """Answer a `ping` of the server; nothing requires it."""

    type: Literal["pong"]


AnyClientFrame = Annotated[
    SubscribeFrame
    | UnsubscribeFrame
    | PublishFrame
    | AuthFrame
    | PresenceFrame
    | UntilFrame
    | PingFrame
    | PongFrame,
    Field(discriminator="type"),
]
