"""Frames that name the subscription that they are for, and say where transactions end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from brain.message.cursor import Cursor
from brain.message.event import Event
from brain.message.matching import Match, is_reset
from brain.message.page import Page, parts_of
from brain.message.rendering import MOST_FRAMES, Encoding, Framing
from brain.message.run import MatchedRun, Run
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
        self,
        handle: TopicHandle,
        event: Event,
        match: Match,
        *,
        is_last: bool,
        may_resume: bool = True,
    ) -> bytes | None:
        """
        Return the frame for the subscribers of a topic; as a rule, it is made once.

        Without `may_resume`, a client that is cut after it gets it again.
        """
        name = self.name, handle.number, match, is_last, may_resume
        if name in event.frames:
            return event.frames[name]
        frame = None
        try:
            text = self._format.render_for(handle, event, match, is_last=is_last)
            if text is not None:
                # A client that is cut before it has the state again has to get the reset again.
                may_resume = may_resume and not is_reset(event, match)
                frame = self.framing.frame(text, self._cursor(event) if may_resume else None)
        except Exception as error:
            # One event that cannot be rendered must not hold up all others.
            self._report(event, f"{type(error).__name__}: {error}", error)
        if len(event.frames) < MOST_FRAMES_OF_AN_EVENT:
            event.frames[name] = frame
        return frame

    def encode_commit(self, event: Event, subscriptions: SubscriptionSet) -> bytes:
        """Return the frame that the transaction of `event`, its last one, has ended."""
        text = self._format.render_commit(event, subscriptions)
        return self.framing.frame(text, self._cursor(event))

    def _cursor(self, event: Event) -> Cursor | None:
        return event.cursor if self._format.has_cursors else None

    def encode_page(self, handle: TopicHandle, page: Page) -> Iterator[bytes]:
        """Yield the frames of a page, made once for clients that are sent it at the same time."""
        for start, rows in parts_of(page.rows):
            name = self.name, handle.number, start
            frame = page.frames.get(name)
            if frame is None:
                if len(page.frames) >= MOST_FRAMES:
                    del page.frames[next(iter(page.frames))]
                frame = self.framing.frame(self._format.render_page(handle, rows))
                page.frames[name] = frame
            yield frame

    def encode_snapshot_end(self, handle: TopicHandle, cursor: Cursor) -> bytes:
        """Return the frame that a snapshot is complete."""
        return self.framing.frame(self._format.render_snapshot_end(handle, cursor), cursor)

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
        self._subscriptions = subscriptions
        self._ended: set[int] = set()
        """Ids of events after which the frame of `encode_commit` follows."""
        is_alone = run is None
        run = run or Run(events)
        own = (event for event in events if event.recipient is None or event.recipient == user)
        self._matched = MatchedRun(run, own, subscriptions.matches)
        if is_alone and run.begun_before:
            # Not where the last message of every subscription is marked as such.
            marked = Counter(transaction_id for transaction_id, _, _ in self._matched.last)
            most = len(subscriptions.topics) * len({None, user})
            self._ended = {id for id, one in run.begun_before.items() if marked[one] < most}
        # A client that goes on after a message for one user alone would miss the `commit` after it,
        # which is for what the others get of the transaction, too.
        self._precedes_commit = self._ended if is_alone else run.begun_before.keys()

    def frames(self, event: Event) -> Iterator[bytes]:
        may_resume = event.recipient is None or event.id not in self._precedes_commit
        for handle, match in self._matched.matches(event):
            is_last = self._matched.is_last(event, handle)
            frame = self._encoding.encode_for(
                handle, event, match, is_last=is_last, may_resume=may_resume
            )
            if frame is not None:
                yield frame
        if event.id in self._ended:
            yield self._encoding.encode_commit(event, self._subscriptions)
