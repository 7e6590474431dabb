"""What a wire format has to know."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Protocol

from brain.message.cursor import Cursor
from brain.message.event import Event
from brain.message.snapshot import Snapshot


class WireFormat(Protocol):
    """
    How one kind of client is spoken to, without a socket and without a database.

    Every text it returns is one complete WebSocket message. `cursor` is the place in the log after
    what the client has been told, by which it could come back.
    """

    name: str
    """Under which an event keeps its rendering."""

    def greet(self, now: datetime, cursor: Cursor) -> str:
        """Return the first message of a connection."""
        ...

    def render(self, event: Event) -> str | None:
        """Return the message that tells of `event`; None if these clients are not told."""
        ...

    def answer(self, text: str, now: datetime, cursor: Cursor) -> str:
        """Return the reply to what a client said."""
        ...

    def heartbeat(self, now: datetime, cursor: Cursor) -> str | None:
        """Return what to say when there has been nothing to say for a while, if anything."""
        ...

    def reset(self, reason: str, now: datetime, cursor: Cursor) -> str | None:
        """Return how to say that what lies before `cursor` cannot be told, if there is a way."""
        ...

    def tell_snapshot(self, snapshot: Snapshot, now: datetime) -> Iterator[str]:
        """Yield the messages that tell what the tables hold, if there is a way."""
        ...


def frame(event: Event, wire_format: WireFormat) -> str | None:
    """Return `event` in `wire_format`, rendered once however many clients it goes to."""
    try:
        return event.frames[wire_format.name]
    except KeyError:
        text = event.frames[wire_format.name] = wire_format.render(event)
        return text
