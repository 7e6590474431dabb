"""One client, as the hub sees it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from brain.errors import ConnectionEnded
from brain.hub.outgoing import send
from brain.message.cursor import Cursor
from brain.message.event import Event
from brain.message.rendering import Encoding
from brain.message.subscription_set import SubscriptionSet

# The position of a subscriber that the hub does not feed.
CATCHING_UP = -1


@dataclass(eq=False, slots=True)
class Subscriber:
    """What a client gets, in which encoding, and how far it has got."""

    encoding: Encoding
    subscriptions: SubscriptionSet
    user: str | None
    """The user that it belongs to, for private messages; None: it gets none."""
    send_now: Callable[[bytes], int]
    """See `Outgoing`."""
    write: Callable[[bytes], object]
    """See `Outgoing`."""
    on_gap: Callable[[ConnectionEnded], None]
    """Called when the hub cannot send everything after `cursor`; restarts or closes the client."""
    reload: Callable[[Sequence[Event]], None] | None
    """Called with the events that were sent as a reset, for a client that gets the rows again."""
    cursor: Cursor
    """The place in the log up to which it was sent everything; nothing before it is sent."""
    position: int = CATCHING_UP
    """The ring's number of the next event to look at; not maintained while it keeps up."""
    is_paused: bool = False
    """True while its transport buffers."""
    conflates: bool = False
    """While it lags, superseded messages may be skipped."""
    on_live: Callable[[], None] | None = None
    """Called when it begins to keep up."""

    def send(self, frames: bytes) -> None:
        """Send frames; not to be called while it is paused."""
        send(frames, self.send_now, self.write)
