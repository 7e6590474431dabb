"""The subscribers that get the same messages: their frames are joined once, for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from brain.hub.subscriber import Subscriber
from brain.hub.traffic import Traffic
from brain.message.event import Event
from brain.message.matching import Match
from brain.message.rendering import Encoding
from brain.message.subscription_encoding import SubscriptionEncoding
from brain.message.subscription_set import SubscriptionSet
from brain.message.topic_handle import TopicHandle

Addressed = tuple[Event, TopicHandle, Match, bool]
"""An event, a topic that it concerns, how, and whether it ends its transaction for that topic."""


class Cohort:
    """The subscribers with one encoding and one subscription set that keep up."""

    def __init__(
        self,
        encoding: Encoding,
        subscriptions: SubscriptionSet,
        sent_at: float,
        traffic: Traffic | None = None,
    ) -> None:
        self.encoding = encoding
        self.subscriptions = subscriptions
        self.sent_at = sent_at
        """When something was sent last, in seconds of the hub's clock."""
        self._traffic = traffic or Traffic()
        self.members: dict[Subscriber, Callable[[bytes], int]] = {}
        """Each with its `send_now`."""

    def deliver(self, matched: Iterable[tuple[Event, Match]], now: float) -> None:
        """Send to every member the messages for events that concern them in these ways."""
        encode = self.encoding.encode
        frames = [encode(event, match) or b"" for event, match in matched]
        self.write(b"".join(frames), now, len(frames) - frames.count(b""))

    def write(self, frames: bytes, now: float, messages: int = 0) -> None:
        """
        Send the same to every member; one that does not take all of it leaves the cohort.

        `messages` is how many of the log are in it.
        """
        if not frames:
            return
        self.sent_at = now
        size = len(frames)
        traffic, members = self._traffic, len(self.members)
        traffic.messages += messages * members
        traffic.bytes += size * members
        # This inlines `send`, to save a call per delivery. Two lists instead of pairs: many new
        # tuples would trigger the garbage collector.
        for subscriber, send_now in zip([*self.members], [*self.members.values()], strict=True):
            try:
                sent = send_now(frames)
            except OSError:
                sent = 0
            if sent < size:
                subscriber.write(frames[sent:])


class SubscriptionCohort(Cohort):
    """Subscribers that are sent messages which name the subscription that they are for."""

    def __init__(
        self,
        encoding: SubscriptionEncoding,
        subscriptions: SubscriptionSet,
        sent_at: float,
        traffic: Traffic | None = None,
    ) -> None:
        super().__init__(encoding, subscriptions, sent_at, traffic)
        self._encode = encoding.encode_for
        self._encode_commit = encoding.encode_commit

    def write_commit(self, event: Event, now: float) -> None:
        """Send that the transaction of an event, its last one, has ended."""
        self.write(self._encode_commit(event, self.subscriptions), now)

    def deliver_addressed(self, addressed: Iterable[Addressed], now: float) -> None:
        """Send to every member the messages for events that concern topics of theirs."""
        encode = self._encode
        frames = [
            encode(handle, event, match, is_last=is_last) or b""
            for event, handle, match, is_last in addressed
        ]
        self.write(b"".join(frames), now, len(frames) - frames.count(b""))
