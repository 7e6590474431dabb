"""One client, as the hub sees it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from brain.errors import ConnectionEnded
from brain.message.cursor import Cursor
from brain.message.wire_format import WireFormat


@dataclass(eq=False, slots=True)
class Subscriber:
    """Who hears which channels in which format, and how far it has read."""

    wire_format: WireFormat
    channels: frozenset[str]
    wake: Callable[[], None]
    """Called when there may be something to take; must return at once."""
    position: int
    """The number in the ring of the next event to look at."""
    cursor: Cursor
    """The place in the log up to which it has been told everything; it is told nothing before."""
    ended: ConnectionEnded | None = None
    """Why the hub has given up on it."""
