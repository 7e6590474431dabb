"""The newest state of a feed, sent to every subscriber."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from brain.errors import ConnectionEnded
from brain.hub.outgoing import Outgoing, send
from brain.message.rendering import Framing


@dataclass(eq=False, slots=True)
class FeedSubscriber:
    """A client that is sent the state of a feed."""

    outgoing: Outgoing
    framing: Framing
    end: Callable[[ConnectionEnded], None]
    """Closes its connection; it unsubscribes meanwhile."""
    sent_etag: str | None = None
    """The etag of the last state it was sent."""
    is_paused: bool = False


class FeedFanout:
    """
    Keeps the newest state as a finished frame, and sends it to every subscriber once.

    Nothing is queued. A subscriber that does not read gets nothing until it does, and then the
    newest state, whatever it missed in between.
    """

    def __init__(self) -> None:
        self._text = ""
        self._frames: dict[str, bytes] = {}
        """The state as a frame, per framing."""
        self._etag: str | None = None
        """None as long as there is no state."""
        self._subscribers: set[FeedSubscriber] = set()

    def __len__(self) -> int:
        """Return how many subscribers there are."""
        return len(self._subscribers)

    @property
    def has_subscribers(self) -> bool:
        return bool(self._subscribers)

    def add(self, subscriber: FeedSubscriber) -> None:
        """Add a subscriber, and send it the state if there is one."""
        self._subscribers.add(subscriber)
        self._catch_up(subscriber)

    def remove(self, subscriber: FeedSubscriber) -> None:
        """Remove a subscriber; may be called again."""
        self._subscribers.discard(subscriber)

    def publish(self, text: str, etag: str) -> None:
        """Send a new state to every subscriber that reads; nothing if its etag is the same."""
        if etag == self._etag:
            return
        self._text, self._frames, self._etag = text, {}, etag
        for subscriber in list(self._subscribers):
            if subscriber.is_paused:
                continue
            subscriber.sent_etag = etag
            outgoing = subscriber.outgoing
            send(self._frame(subscriber), outgoing.send_now, outgoing.write)

    def pause_writing(self, subscriber: FeedSubscriber) -> None:
        """Send nothing to a subscriber until `resume_writing`."""
        subscriber.is_paused = True

    def resume_writing(self, subscriber: FeedSubscriber) -> None:
        """Send the newest state to a subscriber that has read the former one."""
        subscriber.is_paused = False
        self._catch_up(subscriber)

    def end(self, reason: ConnectionEnded, *, only_waiting: bool = False) -> None:
        """Close the connections of all subscribers, or of those that have no state yet."""
        for subscriber in list(self._subscribers):
            if not only_waiting or subscriber.sent_etag is None:
                self._subscribers.discard(subscriber)
                subscriber.end(reason)

    def _frame(self, subscriber: FeedSubscriber) -> bytes:
        framing = subscriber.framing
        frame = self._frames.get(framing.name)
        if frame is None:
            frame = self._frames[framing.name] = framing.frame(self._text)
        return frame

    def _catch_up(self, subscriber: FeedSubscriber) -> None:
        is_outdated = subscriber.sent_etag != self._etag
        if self._etag is not None and is_outdated and not subscriber.is_paused:
            subscriber.sent_etag = self._etag
            subscriber.outgoing.write(self._frame(subscriber))
