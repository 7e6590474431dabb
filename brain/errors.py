"""
What can go wrong.

BrainError
├── UsageError                      what was typed cannot be meant: exit 2
│   ├── WrongDatabaseUrl
│   └── PortTaken
├── DatabaseError                   the database cannot serve Brain: exit 1
│   ├── DatabaseUnreachable
│   ├── DatabaseTooOld
│   ├── PoolerInTheWay
│   ├── RightsMissing
│   └── EmbeddedServerError
├── WrongUvicorn                    its version is not the one Brain is written for: exit 1
├── MigrationError                  files and database disagree: exit 1
│   ├── MigrationChanged
│   ├── MigrationFailed
│   ├── MigrationsPending
│   └── MigrationUnknown
├── CursorLost                      the log no longer holds what follows a cursor
├── MessageRefused                  what was published is no message
├── TooManyConnections              a WebSocket is refused: 429 or 503
├── TokenRefused                    nobody's token, or not any more
├── TaskError                       a call of the Python client was refused
│   ├── UnknownTask
│   └── UnknownStatus
└── ConnectionEnded                 a WebSocket is closed by Brain
    ├── NotReady                    1013, come back
    ├── TooFarBehind                4008, come back
    ├── HistoryLost                 4009, come back
    ├── LogUnreachable              4010, come back
    └── SnapshotTooLarge            4500, do not; 413
"""

from __future__ import annotations

from typing import ClassVar


class BrainError(Exception):
    """Anything that Brain itself reports; its text is one line for a person."""

    exit_code: ClassVar[int] = 1


class UsageError(BrainError):
    """What was typed cannot be meant."""

    exit_code = 2


class WrongDatabaseUrl(UsageError):
    """The database URL is not one."""


class PortTaken(UsageError):
    """Another process listens on the address."""


class DatabaseError(BrainError):
    """The database cannot serve Brain."""


class DatabaseUnreachable(DatabaseError):
    """No connection: nothing listens there, or it refused the login."""


class DatabaseTooOld(DatabaseError):
    """The server is older than PostgreSQL 14."""


class PoolerInTheWay(DatabaseError):
    """A pooler hands every transaction to another server connection."""


class RightsMissing(DatabaseError):
    """The role may not do what Brain has to do."""


class EmbeddedServerError(DatabaseError):
    """The embedded PostgreSQL could not be found, prepared or started."""


class WrongUvicorn(BrainError):
    """The installed uvicorn is not the version that Brain's protocol class is written for."""


class MigrationError(BrainError):
    """The migration files and the database disagree."""


class MigrationChanged(MigrationError):
    """A file was edited after it had been applied."""


class MigrationFailed(MigrationError):
    """A file was refused by the database; nothing of it was kept."""


class MigrationsPending(MigrationError):
    """The database lacks migrations and was not to be migrated."""


class MigrationUnknown(MigrationError):
    """The database is ahead of this version of Brain."""


class CursorLost(BrainError):
    """The log no longer holds what follows a cursor."""


class MessageRefused(BrainError):
    """What was published is no message: too large, not JSON, or without a channel or a type."""


class TooManyConnections(BrainError):
    """There are as many clients as there may be: in all, from this address, or of this user."""

    def __init__(self, text: str, status_code: int) -> None:
        super().__init__(text)
        self.status_code = status_code


class TokenRefused(BrainError):
    """It is nobody's token, or not any more. What is wrong with it is not said to strangers."""


class TaskError(BrainError):
    """A call of the Python client was refused."""


class UnknownTask(TaskError):
    """There is no task with this id."""


class UnknownStatus(TaskError):
    """A task cannot have this status."""


class ConnectionEnded(BrainError):
    """
    A WebSocket is closed by Brain.

    Codes from 4000 to 4499 tell the client to come back, from 4500 to 4999 not to.
    """

    close_code: ClassVar[int]


class NotReady(ConnectionEnded):
    """Brain does not follow the database yet."""

    close_code = 1013


class TooFarBehind(ConnectionEnded):
    """The client reads more slowly than messages come, and fell off the ring."""

    close_code = 4008


class HistoryLost(ConnectionEnded):
    """The log was replaced by an older or another one; what lies between cannot be told."""

    close_code = 4009


class LogUnreachable(ConnectionEnded):
    """What the client missed cannot be read at the moment."""

    close_code = 4010


class SnapshotTooLarge(ConnectionEnded):
    """The rows that a client asked for are more than Brain may read for it."""

    close_code = 4500
