"""
What a program that uses the client has to know.

BrainClientError
├── InvalidUrl          the address given to `Brain` is none
├── CursorFileError     the cursor file cannot be read, written or locked
├── Refused             Brain refuses the request: it would refuse it again
├── Closed              Brain ended the connection for good, or the token has expired
├── InvalidRow          a row does not fit the model
├── ConnectionLost      the connection broke, and it is not known whether the request was done
└── NeedsWebSocket      the network lets only server-sent events through
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any


class BrainClientError(Exception):
    """Any error of the client; its text is for a person."""

    def __init__(
        self, message: str, *, code: str | int | None = None, advice: str | None = None
    ) -> None:
        super().__init__(message if advice is None else f"{message}. {advice}")
        self.message = message
        self.code = code
        """The code of an `error` frame, an HTTP status or a close code."""
        self.advice = advice
        """What to do about it."""


class InvalidUrl(BrainClientError, ValueError):
    """The address is no http, https, ws or wss URL of a host."""


class CursorFileError(BrainClientError):
    """The cursor file cannot be used."""

    def __init__(self, path: Path, problem: str, advice: str) -> None:
        super().__init__(f"the cursor file {path}: {problem}", advice=advice)
        self.path = path


class Refused(BrainClientError):
    """Brain refuses a subscription or a request, and would refuse it again."""


class Closed(BrainClientError):
    """The connection was ended, and the same request would be ended again."""


class InvalidRow(BrainClientError):
    """A row does not fit the model; the next change follows it as if it had been handled."""

    def __init__(self, channel: str, key: Sequence[Any] | None, problem: str) -> None:
        super().__init__(
            f"a row of {channel} with the key {key} does not fit the model: {problem}",
            advice="Catch it and go on iterating, or change the model",
        )
        self.channel = channel
        self.key = key
        self.problem = problem


class ConnectionLost(BrainClientError):
    """The connection broke before the answer came: the request may have been carried out."""


class NeedsWebSocket(BrainClientError):
    """The call needs a WebSocket, and only server-sent events get through."""
