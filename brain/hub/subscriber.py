"""One client, as the hub sees it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from brain.errors import ConnectionEnded
from brain.hub.sending import send
from brain.message.cursor import Cursor
from brain.message.topic import Interest
from brain.message.wire_format import WireFormat

# The position of a subscriber that is not fed from the ring.
OUTSIDE = -1


@dataclass(eq=False, slots=True)
class Subscriber:
    """Who hears what in which format, and how far it has been told."""

    wire_format: WireFormat
    interest: Interest
    user: str | None
    """Who is told what only one user is told; None is told nothing of the kind."""
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

    def tell(self, frames: bytes) -> None:
        """Send what can be sent at once, and write the rest; not while it is paused."""
        send(frames, self.send_now, self.write)
