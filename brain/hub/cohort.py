"""Those who hear the same: what they are told is joined once, and is the same bytes for each."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from brain.hub.subscriber import Subscriber
from brain.message.event import Event
from brain.message.topic import Interest
from brain.message.wire_format import WireFormat, frames_for


class Cohort:
    """The subscribers with one interest and one format that have been told everything."""

    def __init__(self, wire_format: WireFormat, interest: Interest, told_at: float) -> None:
        self.wire_format = wire_format
        self.interest = interest
        self.told_at = told_at
        """When something was told last, in seconds."""
        self.members: dict[Subscriber, Callable[[bytes], int]] = {}
        """How each is sent to, as long as it takes everything."""

    def tell(self, events: Sequence[Event], now: float) -> None:
        """Tell everybody what of `events` is for all."""
        self.write(b"".join(frames_for(events, self.wire_format, self.interest, None)), now)

    def write(self, frames: bytes, now: float) -> None:
        """Send the same to everybody; who does not take all of it will not be a member any more."""
        if not frames:
            return
        self.told_at = now
        size = len(frames)
        # As `send` does it, but without a call for each: every delivery passes here. And without a
        # pair for each, which would have the garbage collector go through all there is.
        for subscriber, send_now in zip([*self.members], [*self.members.values()], strict=True):
            try:
                sent = send_now(frames)
            except OSError:
                sent = 0
            if sent < size:
                subscriber.write(frames[sent:])
