"""Frames that name the subscription that they are for, and say where transactions end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime

from brain.errors import LogUnavailable
from brain.message.event import Event
from brain.message.filter_index import selects
from brain.message.matching import Match, is_reset
from brain.message.rendering import MOST_FRAMES, Encoding, Framing
from brain.message.row import Row
from brain.message.run import MatchedRun, Run
from brain.message.snapshot import Part, Snapshot, parts_of
from brain.message.subscription_set import SubscriptionSet
from brain.message.topic_handle import TopicHandle
from brain.message.wire_format import SubscriptionFormat
from brain.problems import Problems

# Of an event that are kept, in all encodings: one that many filters match has one for each of them.
MOST_FRAMES_OF_AN_EVENT = 8


class SubscriptionEncoding(Encoding):
    """An encoding of messages that name the subscription that they are for."""

    def __init__(
        self, wire_format: SubscriptionFormat, framing: Framing, problems: Problems
    ) -> None:
        super().__init__(wire_format, framing, problems)
        self._format = wire_format

    def encode_for(
        self, handle: TopicHandle, event: Event, match: Match, *, is_last: bool
    ) -> bytes | None:
        """Return the frame for the subscribers of a topic; as a rule, it is made once."""
        name = self.name, handle.number, match, is_last
        if name in event.frames:
            return event.frames[name]
        frame = None
        try:
            text = self._format.render_for(handle, event, match, is_last=is_last)
            if text is not None:
                # A client that is cut before it has the state again has to get the reset again.
                frame = self.framing.frame(text, None if is_reset(event, match) else event.cursor)
        except Exception as error:
            # One event that cannot be rendered must not hold up all others.
            self._report(event, f"{type(error).__name__}: {error}", error)
        if len(event.frames) < MOST_FRAMES_OF_AN_EVENT:
            event.frames[name] = frame
        return frame

    def encode_commit(self, event: Event) -> bytes:
        """Return the frame that the transaction of `event`, its last one, has ended."""
        return self.framing.frame(self._format.render_commit(event), event.cursor)

    def encode_snapshot(
        self, snapshot: Snapshot, subscriptions: SubscriptionSet, now: datetime
    ) -> Iterator[bytes]:
        """Yield the frames of `snapshot`; raises `LogUnavailable` if its rows have no key."""
        for handle in subscriptions.handles:
            channel = handle.topic.channel
            rows, key = snapshot.tables.get(channel, []), snapshot.keys.get(channel)
            if key is None and rows:
                text = f"{channel} has no snapshot: not all columns of its primary key are watched"
                raise LogUnavailable(text)
            for part in parts_of(Snapshot({channel: rows}, snapshot.cursor)):
                frame = self._encode_rows(snapshot, handle, part, key or ())
                if frame is not None:
                    yield frame
            text = self._format.render_snapshot_end(handle, snapshot.cursor)
            yield self.framing.frame(text, snapshot.cursor)

    def _encode_rows(
        self, snapshot: Snapshot, handle: TopicHandle, part: Part, key_columns: Sequence[str]
    ) -> bytes | None:
        """Return the frame of a part, made once for clients that are sent it at the same time."""
        name = self.name, handle.number, part.start
        if name in snapshot.frames:
            return snapshot.frames[name]
        rows = [(key_of(row, key_columns), row) for row in part.rows]
        chosen = [(key, row) for key, row in rows if selects(handle.topic, key, Row(row))]
        if not chosen:
            return None
        if len(snapshot.frames) >= MOST_FRAMES:
            del snapshot.frames[next(iter(snapshot.frames))]
        frame = snapshot.frames[name] = self.framing.frame(self._format.render_page(handle, chosen))
        return frame

    def encoder(
        self,
        events: Sequence[Event],
        subscriptions: SubscriptionSet,
        user: str | None,
        run: Run | None = None,
    ) -> Callable[[Event], Iterable[bytes]]:
        """
        Do what `Encoding.encoder` does.

        Without a `run`, the frames say, too, that transactions have ended of which the subscriber
        may have been sent a part before.
        """
        return EncodedRun(self, events, subscriptions, user, run).frames


def key_of(row: str, columns: Sequence[str]) -> str:
    """Return the JSON of the primary key, as events have it, of a row with all its columns."""
    values = Row(row)
    return f"[{', '.join(values.text(name) for name in columns)}]"


class EncodedRun:
    """The frames of one subscriber for events that are delivered together."""

    def __init__(
        self,
        encoding: SubscriptionEncoding,
        events: Sequence[Event],
        subscriptions: SubscriptionSet,
        user: str | None,
        run: Run | None,
    ) -> None:
        self._encoding = encoding
        self._ended: set[int] = set()
        """Ids of events after which the frame of `encode_commit` follows."""
        is_alone = run is None
        run = run or Run(events)
        own = (event for event in events if event.recipient is None or event.recipient == user)
        self._matched = MatchedRun(run, own, subscriptions.matches)
        if is_alone and run.begun_before:
            # Not where every subscription has a message that says it.
            said = Counter(transaction_id for transaction_id, _, _ in self._matched.last)
            most = len(subscriptions.topics) * len({None, user})
            self._ended = {id for id, one in run.begun_before.items() if said[one] < most}

    def frames(self, event: Event) -> Iterator[bytes]:
        for handle, match in self._matched.matches(event):
            is_last = self._matched.is_last(event, handle)
            frame = self._encoding.encode_for(handle, event, match, is_last=is_last)
            if frame is not None:
                yield frame
        if event.id in self._ended:
            yield self._encoding.encode_commit(event)
