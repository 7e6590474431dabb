"""What a wire format has to know."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from brain.message.event import Event


class WireFormat(Protocol):
    """
    How one kind of client is spoken to, without a socket and without a database.

    Every text it returns is one complete WebSocket message.
    """

    name: str
    """Under which an event keeps its rendering."""

    def greet(self, now: datetime) -> str:
        """Return the first message of a connection."""
        ...

    def render(self, event: Event) -> str | None:
        """Return the message that tells of `event`; None if these clients are not told."""
        ...

    def answer(self, text: str, now: datetime) -> str:
        """Return the reply to what a client said."""
        ...


def frame(event: Event, wire_format: WireFormat) -> str | None:
    """Return `event` in `wire_format`, rendered once however many clients it goes to."""
    try:
        return event.frames[wire_format.name]
    except KeyError:
        text = event.frames[wire_format.name] = wire_format.render(event)
        return text
