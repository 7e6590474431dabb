"""
What can go wrong; a system may add errors of its own.

BrainError
├── UsageError                      a wrong option, argument or setting: exit 2
│   └── WrongDatabaseUrl
├── PortTaken                       another process listens there, maybe for a moment: exit 1
├── DatabaseError                   the database cannot serve Brain: exit 1
│   ├── DatabaseUnreachable
│   ├── DatabaseTooOld
│   ├── PoolerInTheWay
│   ├── RightsMissing
│   └── EmbeddedServerError
├── WrongUvicorn                    not the version that Brain subclasses: exit 1
├── MigrationError                  files and database disagree: exit 1
│   ├── MigrationChanged
│   ├── MigrationFailed
│   ├── MigrationsPending
│   ├── MigrationUnknown
│   ├── MigrationUnsupported
│   ├── NodesServing
│   ├── SchemaGone
│   └── SchemaTooNew
├── FileOutOfDate                   a file differs from what a command would write: exit 1
├── CursorLost                      the log does not hold what follows a cursor
├── RowNotShown                     a wire format cannot show a row
├── FilterRefused                   422: a filter is malformed, or not one of the table's rows
├── MessageRefused                  422: what was published is no message
│   └── MessageTooLarge             413
├── TooManyConnections              429 or 503: a WebSocket or a stream is refused
├── TokenRefused                    a token is invalid, expired or revoked
├── ClaimMissing                    403: a token lacks a claim that a feed needs
├── AccessUndecided                 503: the database could not be asked for access
└── ConnectionEnded                 Brain closes a WebSocket, or ends a stream
    ├── NotReady                    1013, reconnect
    ├── SlowConsumer                4008, reconnect
    ├── HistoryLost                 4009, reconnect
    ├── LogUnavailable              4010, reconnect; 503
    └── SnapshotTooLarge            4500, do not reconnect; 413
"""

from __future__ import annotations

from typing import ClassVar

from brain.close_codes import CloseCode


class BrainError(Exception):
    """Any error that Brain itself reports; its text is one line for a person."""

    exit_code: ClassVar[int] = 1
    """Of a command that ends with it."""
    http_status: int = 500
    """Of the response to a request that ends with it."""


class UsageError(BrainError):
    """An option, an argument or a setting is wrong."""

    exit_code = 2


class WrongDatabaseUrl(UsageError):
    """The database URL is malformed."""


class PortTaken(BrainError):
    """Another process listens on the address; no wrong usage, since it may end."""


class DatabaseError(BrainError):
    """The database cannot serve Brain."""

    http_status = 503


class DatabaseUnreachable(DatabaseError):
    """No connection: nothing listens there, or it refused the login."""


class DatabaseTooOld(DatabaseError):
    """The server is older than PostgreSQL 14."""


class PoolerInTheWay(DatabaseError):
    """A pooler hands every transaction to another server connection."""


class RightsMissing(DatabaseError):
    """The role lacks a right that Brain needs."""


class EmbeddedServerError(DatabaseError):
    """The embedded PostgreSQL could not be found, prepared or started."""


class WrongUvicorn(BrainError):
    """The installed uvicorn is not the version that Brain's protocol class is written for."""


class MigrationError(BrainError):
    """The migration files and the database disagree."""


class MigrationChanged(MigrationError):
    """An upgrade was edited after it had been applied."""


class MigrationFailed(MigrationError):
    """A file was refused by the database; nothing of it was kept."""


class MigrationsPending(MigrationError):
    """The schema of the database is out of date, and Brain was started with --no-migrate."""


class MigrationUnknown(MigrationError):
    """The database has an upgrade, or files of a newer Brain, that this installation lacks."""


class NodesServing(MigrationError):
    """A migration would cut off nodes that serve the database."""


class SchemaTooNew(MigrationError):
    """A newer Brain has migrated the database, whose schema no longer serves this one."""


class MigrationUnsupported(MigrationError):
    """The database holds a schema from before the first release, which cannot be upgraded."""


class RowNotShown(BrainError):
    """A row has a value that a wire format cannot show."""


class FilterRefused(BrainError):
    """A filter is malformed, or compares what the columns of its channel do not have."""

    http_status = 422


class SchemaGone(MigrationError):
    """Something that Brain needs was dropped while it was running."""


class FileOutOfDate(BrainError):
    """A file differs from what a command would write."""


class CursorLost(BrainError):
    """The log does not hold what follows a cursor."""


class MessageRefused(BrainError):
    """What was published is no message: not JSON, or without a channel or a type."""

    http_status = 422


class MessageTooLarge(MessageRefused):
    """What was published is larger than a message may be."""

    http_status = 413


class TooManyConnections(BrainError):
    """A quota of connections is used up: in all, of an address, or of a user."""

    def __init__(self, text: str, http_status: int, quota: str) -> None:
        """`quota` is one word for what is used up."""
        super().__init__(text)
        self.http_status = http_status
        self.quota = quota


class TokenRefused(BrainError):
    """A token is invalid, expired or revoked. The client does not learn which."""

    def __init__(self, reason: str = "a claim has a wrong form", kind: str = "malformed") -> None:
        """`reason` is for the log, and `kind` one word for it: there are few."""
        super().__init__()
        self.reason = reason
        self.kind = kind


class ClaimMissing(BrainError):
    """The client's token lacks the claim by which it is decided what the client gets."""

    http_status = 403


class AccessUndecided(BrainError):
    """The access function or the row rules could not be asked, or did not answer in time."""

    http_status = 503

    def __init__(
        self, text: str = "access cannot be decided at the moment, try again later"
    ) -> None:
        super().__init__(text)


class ConnectionEnded(BrainError):
    """Brain closes a WebSocket or a stream, with a code that says whether to reconnect."""

    close_code: ClassVar[CloseCode]


class NotReady(ConnectionEnded):
    """Brain has not reached the database since it started."""

    close_code = CloseCode.TRY_AGAIN_LATER
    http_status = 503


class SlowConsumer(ConnectionEnded):
    """The client reads more slowly than messages come, and fell off the ring."""

    close_code = CloseCode.SLOW_CONSUMER


class HistoryLost(ConnectionEnded):
    """The log was replaced by an older or another one; what lies between cannot be sent."""

    close_code = CloseCode.HISTORY_LOST


class LogUnavailable(ConnectionEnded):
    """What the client missed, or asked for, cannot be read at the moment."""

    close_code = CloseCode.LOG_UNAVAILABLE
    http_status = 503


class SnapshotTooLarge(ConnectionEnded):
    """A snapshot, or the state of a feed, is larger than Brain may read for a client."""

    close_code = CloseCode.SNAPSHOT_TOO_LARGE
    http_status = 413
