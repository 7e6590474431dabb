"""
What clients of brain.v1 are sent: the models from which its JSON Schema is made.

Source: docs/protocol.md, "brain.v1". Answers, and what concerns the connection, have a `type`; what
concerns a subscription has an `op`. A key without a value is left out.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from brain.message.error_codes import ErrorCode
from brain.message.v1_client_frames import Presence
from brain.message.wire_model import Timestamp, WireModel

Sub = Annotated[int, Field(ge=1)]
"""The number of a subscription."""
TransactionId = Annotated[str, Field(pattern=r"^[0-9]{1,20}$")]
Row = dict[str, Any]
"""The watched columns of a row."""


class Hello(WireModel):
    """The first frame of every connection."""

    type: Literal["hello"] = "hello"
    protocol: Literal["brain.v1"] = "brain.v1"
    version: str
    """That of Brain."""
    connection: str
    """The id of this connection."""
    user: str | None
    """The user of the token; null without one, or with an invalid one."""
    cursor: str


class Subscribed(WireModel):
    """A subscription has begun, or has another number from now on."""

    type: Literal["subscribed"] = "subscribed"
    id: str
    sub: Sub
    channel: str
    key: list[Any] | None = None
    where: dict[str, Any] | None = None
    numbers: Literal["string"] | None = None
    columns: list[str] | None = None
    """The watched columns, if a table is watched on the channel."""
    restricted: bool = False
    """True if row rules decide which rows the client sees."""
    cursor: str | None = None
    """What happens after it is sent; without it, the rows of the table come."""
    since: Timestamp | None = None
    """What has happened since then comes first: the time asked for, or that of the oldest tick."""
    replaces: Sub | None = None
    """The number that the subscription had before its rights changed."""


class Unsubscribed(WireModel):
    """A subscription has ended, because the client asked for it, or lost the right."""

    type: Literal["unsubscribed"] = "unsubscribed"
    id: str
    sub: Sub
    code: ErrorCode | None = None
    """Why, unless the client asked for it."""


class Published(WireModel):
    """A message was published; `txid` is the transaction in which that was done."""

    type: Literal["published"] = "published"
    id: str
    txid: TransactionId


class Authenticated(WireModel):
    """The connection goes on with another token."""

    type: Literal["authenticated"] = "authenticated"
    id: str
    user: str | None


class PresenceSet(WireModel):
    """The presence of the user was set."""

    type: Literal["presence"] = "presence"
    id: str
    status: Presence


class Until(WireModel):
    """All that a transaction has for this connection has been sent before this frame."""

    type: Literal["until"] = "until"
    id: str
    txid: TransactionId
    cursor: str


class Ping(WireModel):
    """The connection is alive; all that happened before `cursor` has been sent."""

    type: Literal["ping"] = "ping"
    cursor: str


class Pong(WireModel):
    """The answer to a client's `ping`."""

    type: Literal["pong"] = "pong"
    id: str | None = None
    cursor: str


class Error(WireModel):
    """A frame of the client was refused."""

    type: Literal["error"] = "error"
    id: str | None = None
    code: ErrorCode
    message: str
    advice: str


class Closed(WireModel):
    """The last event of a stream, and why it ends; a WebSocket has a close frame instead."""

    type: Literal["closed"] = "closed"
    code: int
    """A close code: from 4500 on, the client should not come back with the same request."""
    reason: str


class OfTransaction(WireModel):
    """A part of what a transaction has for a subscription."""

    sub: Sub
    channel: str
    at: Timestamp
    cursor: str | None = None
    """The place after it; within a snapshot there is none."""
    txid: TransactionId
    last: bool = False
    """True if it is the last part."""


class RowOperation(OfTransaction):
    """A row was changed."""

    key: list[Any]
    omitted: list[str] = Field(default_factory=list)
    """Columns that are too large or cannot be shown, and are left out."""


class Inserted(RowOperation):
    """A row was inserted, or has begun to be one that the client gets."""

    op: Literal["insert"] = "insert"
    row: Row


class Updated(RowOperation):
    """A row was updated."""

    op: Literal["update"] = "update"
    row: Row
    old: Row
    """The watched columns before."""


class Deleted(RowOperation):
    """A row was deleted."""

    op: Literal["delete"] = "delete"
    old: Row


class RowLeft(OfTransaction):
    """A row is no longer one that the client gets."""

    op: Literal["leave"] = "leave"
    key: list[Any]


class TableTruncated(OfTransaction):
    """All rows were removed at once."""

    op: Literal["truncate"] = "truncate"


class PublishedMessage(OfTransaction):
    """A message was published."""

    op: Literal["message"] = "message"
    type: str
    data: Any
    private: bool = False
    """True if it is for this user alone."""


class SubscriptionReset(WireModel):
    """
    What happened before cannot be sent: the client drops what it has.

    A subscription with a snapshot is sent the rows again; otherwise the client loads them.
    """

    sub: Sub
    op: Literal["reset"] = "reset"
    reason: str
    cursor: str | None = None


class SnapshotRow(WireModel):
    """A row of a snapshot."""

    key: list[Any]
    row: Row


class SnapshotPage(WireModel):
    """Rows to insert or replace."""

    sub: Sub
    op: Literal["snapshot"] = "snapshot"
    channel: str
    rows: list[SnapshotRow]


class SnapshotEnd(WireModel):
    """The snapshot is complete; what happens after `cursor` follows."""

    sub: Sub
    op: Literal["snapshot-end"] = "snapshot-end"
    cursor: str


class Live(WireModel):
    """The subscription has caught up: cursors of the connection hold for it, too."""

    sub: Sub
    op: Literal["live"] = "live"
    cursor: str


class Commit(WireModel):
    """A large transaction has ended: none of it follows."""

    sub: Sub | None = None
    """The subscription, if that has not caught up; without it, all those that have."""
    op: Literal["commit"] = "commit"
    txid: TransactionId
    cursor: str | None = None


ControlFrame = Annotated[
    Hello
    | Subscribed
    | Unsubscribed
    | Published
    | Authenticated
    | PresenceSet
    | Until
    | Ping
    | Pong
    | Error
    | Closed,
    Field(discriminator="type"),
]
DataFrame = Annotated[
    Inserted
    | Updated
    | Deleted
    | RowLeft
    | TableTruncated
    | PublishedMessage
    | SubscriptionReset
    | SnapshotPage
    | SnapshotEnd
    | Live
    | Commit,
    Field(discriminator="op"),
]
AnyServerFrame = ControlFrame | DataFrame
