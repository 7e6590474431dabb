"""One frame per event, format and kind of transport."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Protocol

from brain.errors import RowNotShown
from brain.message.cursor import Cursor
from brain.message.event import Event
from brain.message.matching import Match
from brain.message.run import Run
from brain.message.snapshot import Part, Snapshot, parts_of
from brain.message.subscription_set import SubscriptionSet
from brain.message.wire_format import WireFormat
from brain.problems import Problems

# Of a snapshot; the clients that are sent it at the same time share them.
MOST_FRAMES = 4


class Framing(Protocol):
    """How a kind of transport delimits texts."""

    def __hash__(self) -> int: ...

    @property
    def name(self) -> str:
        """Unique: frames are cached under it."""
        ...

    @property
    def transport(self) -> str:
        """The kind of transport, for the log."""
        ...

    @property
    def keep_alive(self) -> bytes:
        """What no client sees, for proxies that end idle connections; empty if not needed."""
        ...

    def frame(self, text: str, cursor: Cursor | None = None) -> bytes:
        """
        Return `text` as one finished frame.

        `cursor` is after it, if a client that has read it may resume from there: some transports
        say so outside the text.
        """
        ...


class Encoding:
    """A wire format on a kind of transport: what decides the bytes of a message."""

    def __init__(self, wire_format: WireFormat, framing: Framing, problems: Problems) -> None:
        """`problems` gets the events that cannot be rendered."""
        self._problems = problems
        self.wire_format = wire_format
        self.framing = framing
        self.name = f"{wire_format.name}/{framing.name}"
        """Equal for encodings that yield the same bytes."""
        self._names = {match: f"{self.name}, {match.value}" for match in Match}
        self._names[Match.MATCHES] = self.name

    def frame(self, text: str, cursor: Cursor | None = None) -> bytes:
        return self.framing.frame(text, cursor)

    def encode(self, event: Event, match: Match) -> bytes | None:
        """Return the frame for `event`, made once however many clients get it; None if none do."""
        name = self._names[match]
        if name in event.frames:
            return event.frames[name]
        frame = None
        try:
            if match is Match.MATCHES:
                text = self.wire_format.render(event)
            else:
                text = self._text_of_filtered(event, match)
            if text is not None:
                frame = self.framing.frame(text)
        except RowNotShown as error:
            self._report(event, str(error))
        except Exception as error:
            # One event that cannot be rendered must not hold up all others.
            self._report(event, f"{type(error).__name__}: {error}", error)
        event.frames[name] = frame
        return frame

    def _text_of_filtered(self, event: Event, match: Match) -> str | None:
        """Return the text for those to whom the row enters or leaves."""
        if match is Match.ENTERS:
            return self.wire_format.render(event.entering())
        if match is Match.LEAVES:
            return self.wire_format.render_leaving(event)
        return None  # of no filter in this format

    def _report(self, event: Event, reason: str, unexpected: Exception | None = None) -> None:
        what = event.key or "a message without a key"
        self._problems.report(
            f"message {event.channel}",
            f"{what} is not sent to clients of {self.wire_format.name}: {reason}",
            channel=event.channel,
            unexpected=unexpected,
        )

    def encode_all(
        self, events: Iterable[Event], subscriptions: SubscriptionSet, user: str | None
    ) -> Iterator[bytes]:
        """Yield the frames that a subscriber gets for `events`, if it belongs to `user`."""
        for event in events:
            if event.recipient is not None and event.recipient != user:
                continue
            match = subscriptions.match(event)
            frame = None if match is None else self.encode(event, match)
            if frame is not None:
                yield frame

    def encoder(
        self,
        events: Sequence[Event],
        subscriptions: SubscriptionSet,
        user: str | None,
        run: Run | None = None,
    ) -> Callable[[Event], Iterable[bytes]]:
        """
        Return what yields the frames that a subscriber gets for each of `events`, in turn.

        `run` is that in which they lie; None: they are all of it.
        """
        return lambda event: self.encode_all((event,), subscriptions, user)

    def encode_snapshot(
        self, snapshot: Snapshot, subscriptions: SubscriptionSet, now: datetime
    ) -> Iterator[bytes]:
        """Yield the frames of `snapshot`, each rendered when it is needed."""
        for part in parts_of(snapshot):
            frame = self._encode_part(snapshot, part, now)
            if frame is not None:
                yield frame

    def _encode_part(self, snapshot: Snapshot, part: Part, now: datetime) -> bytes | None:
        """Return the frame of a part, made once for clients that are sent it at the same time."""
        key = self.name, part.channel, part.start, part.cursor
        frame = snapshot.frames.get(key)
        if frame is None:
            text = self.wire_format.render_part(part, now)
            if text is None:
                return None
            if len(snapshot.frames) >= MOST_FRAMES:
                del snapshot.frames[next(iter(snapshot.frames))]
            frame = snapshot.frames[key] = self.frame(text)
        return frame
