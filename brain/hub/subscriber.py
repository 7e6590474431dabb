"""One client, as the hub sees it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from brain.errors import ConnectionEnded
from brain.message.cursor import Cursor
from brain.message.wire_format import WireFormat

# The position of a subscriber that is not fed from the ring.
OUTSIDE = -1


@dataclass(eq=False, slots=True)
class Subscriber:
    """Who hears which channels in which format, and how far it has been told."""

    wire_format: WireFormat
    channels: frozenset[str]
    send_now: Callable[[bytes], int]
    """Takes of finished frames what it can at once, and returns how many bytes; see `Outlet`."""
    write: Callable[[bytes], object]
    """Takes finished frames whatever the client reads; calls `Hub.pause` if that is too much."""
    lose: Callable[[ConnectionEnded], None]
    """Is told why the hub has given up on it; may start over, or leave."""
    cursor: Cursor
    """The place in the log up to which it has been told everything; it is told nothing before."""
    position: int = OUTSIDE
    """The number in the ring of the next event to look at; not kept while it keeps up."""
    is_paused: bool = False
    """Whether it has been written more than it reads."""
    wants_latest: bool = False
    """Whether it may be spared what has been overtaken, while it is behind."""
