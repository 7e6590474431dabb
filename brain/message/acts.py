"""What comes of what a client says. A wire format decides it; the conversation carries it out."""

from __future__ import annotations

from dataclasses import dataclass

from brain.message.topic import Where


@dataclass(frozen=True, slots=True)
class Say:
    """Answer."""

    text: str


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Hear a channel from now on, or a part of it, and have that confirmed."""

    name: str
    """Of a channel, or of one row of it, as in `tasks:task-123`."""
    where: Where = ()
    wants_latest: bool = False
    """The client may be spared what has been overtaken, while it is behind."""


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """Hear it no longer, and have that confirmed."""

    name: str
    where: Where = ()


@dataclass(frozen=True, slots=True)
class StatePresence:
    """Tell everybody how the client's user is."""

    status: str


@dataclass(frozen=True, slots=True)
class Refresh:
    """Go on with another token of the same user."""

    token: str


@dataclass(frozen=True, slots=True)
class Reject:
    """Say that it cannot be understood, or is not allowed."""

    why: str


Act = Say | Subscribe | Unsubscribe | StatePresence | Refresh | Reject
