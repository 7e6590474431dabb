"""Fan-out: every event goes to every subscriber that it concerns."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

from brain.errors import ConnectionEnded, HistoryLost, NotReady
from brain.hub.cohorts import Cohorts
from brain.hub.conflation import Conflation
from brain.hub.delivery import Delivery, deliveries
from brain.hub.event_caches import EventCaches
from brain.hub.heartbeats import Heartbeats
from brain.hub.outgoing import Outgoing
from brain.hub.ring import Ring
from brain.hub.slow_consumers import SlowConsumers, in_next_turn
from brain.hub.subscriber import CATCHING_UP, Subscriber
from brain.hub.traffic import Traffic
from brain.message.channel_schema import ChannelSchemas
from brain.message.cursor import Cursor
from brain.message.event import Batch, Event, Operation
from brain.message.filter_index import FilterIndexStatistics
from brain.message.matching import Match, is_reset
from brain.message.rendering import Encoding
from brain.message.subscription_encoding import SubscriptionEncoding
from brain.message.subscription_set import SubscriptionSet

# How much is written to a client before the next look at whether it reads.
CHUNK_BYTES = 64 * 1024
CHUNK_EVENTS = 256
# Events take more than twice as much memory as their frames have bytes.
SLICE_BYTES = 2 * CHUNK_BYTES
# Of events that stay split into columns, for clients that get them at about the same time.
CACHED_BYTES = 8 * 1024 * 1024


class HubStatistics(NamedTuple):
    subscribers: int
    events: int
    """Delivered to the hub since it was made."""
    ring_bytes: int
    lagging: int
    """Subscribers that have not been sent everything."""
    cohorts: int
    filters: FilterIndexStatistics
    """Of the clients that keep up."""
    ring_seconds: float
    """How long ago the oldest event in the ring has arrived."""


class Hub:
    """
    Knows which subscriber gets what, and keeps the recent events in one ring for all of them.

    A new subscriber is *catching up*: its session sends what lies before the ring. Then it keeps up
    and is a member of a cohort, which is written to as events arrive; or it is *lagging*, because
    it reads more slowly, and is fed from the ring at a position of its own. A lagging subscriber
    that could be written to is *ready*, and waits for its turn.

    Every method is an ordinary function. With no `await` between reading and writing, no other
    task can see the hub half changed and nothing needs a lock; and no client can hold up another,
    because the hub waits for none.
    """

    def __init__(
        self,
        ring_bytes: int,
        ring_seconds: float,
        schemas: ChannelSchemas | None = None,
        clock: Callable[[], float] = time.monotonic,
        later: Callable[[Callable[[], None]], None] = in_next_turn,
    ) -> None:
        self._ring = Ring(ring_bytes, ring_seconds)
        schemas = schemas or ChannelSchemas()
        self.caches = EventCaches(CACHED_BYTES)
        self._conflation = Conflation(self._ring, schemas.superseded_key, self.caches)
        self._clock = clock
        self._subscribers: set[Subscriber] = set()
        self._of_user: dict[str, set[Subscriber]] = {}
        self.traffic = Traffic()
        self._cohorts = Cohorts(clock, self.traffic)
        self._sent_resets: dict[Subscriber, list[Event]] = {}
        """Those that may want the rows again, with what they were sent as a reset."""
        self._heartbeats = Heartbeats()
        self._slow = SlowConsumers(self._feed, later)
        self.after_delivery: set[Callable[[], None]] = set()
        """Called after each batch, by those that wait for a place in the log."""
        self._next = 0
        """The ring's number of the next event that the cohorts get."""
        self._cursor: Cursor | None = None

    @property
    def cursor(self) -> Cursor:
        """The place after the newest event. Raises `NotReady` before the first batch."""
        if self._cursor is None:
            raise NotReady("Brain does not follow the database yet")
        return self._cursor

    def subscribe(
        self,
        encoding: Encoding,
        subscriptions: SubscriptionSet,
        outgoing: Outgoing,
        on_gap: Callable[[ConnectionEnded], None],
        *,
        after: Cursor | None = None,
        user: str | None = None,
        conflates: bool = False,
        reload: Callable[[Sequence[Event]], None] | None = None,
        on_live: Callable[[], None] | None = None,
    ) -> Subscriber:
        """Add a subscriber that is catching up, from `after` or from here."""
        subscriber = Subscriber(
            encoding,
            subscriptions,
            user,
            outgoing.send_now,
            outgoing.write,
            on_gap,
            reload,
            after or self.cursor,
            conflates=conflates,
            on_live=on_live,
        )
        self._subscribers.add(subscriber)
        if user is not None:
            self._of_user.setdefault(user, set()).add(subscriber)
        return subscriber

    def assign_user(self, subscriber: Subscriber, user: str) -> None:
        """Send a subscriber from now on the private messages of `user`, too."""
        self._of_user.setdefault(user, set()).add(subscriber)
        subscriber.user = user

    def change_subscriptions(self, subscriber: Subscriber, subscriptions: SubscriptionSet) -> None:
        """Replace what a subscriber gets from now on, wherever it stands."""
        self._cohorts.change(subscriber, subscriptions)

    def unsubscribe(self, subscriber: Subscriber) -> None:
        """Remove a subscriber, wherever it stands."""
        self._detach(subscriber)
        self._subscribers.discard(subscriber)
        self._sent_resets.pop(subscriber, None)
        if subscriber.user is not None:
            others = self._of_user.get(subscriber.user, set())
            others.discard(subscriber)
            if not others:
                self._of_user.pop(subscriber.user, None)

    def resume(self, subscriber: Subscriber) -> bool:
        """Go on after the subscriber's cursor; return False if the ring does not hold it."""
        number = self._ring.number_after(subscriber.cursor)
        if number is None:
            return False
        subscriber.position = number
        self._feed(subscriber)
        return True

    def missed(self, after: Cursor, until: Cursor) -> Sequence[Event] | None:
        """
        Return the next few events after a place, up to another one; none are left if it is empty.

        None: the ring does not hold them, or this hub has not come as far.
        """
        number = self._ring.number_after(after)
        if number is None or self.cursor.place < until.place:
            return None
        events = self._ring.since(number, CHUNK_EVENTS)
        return [event for event in events if event.place <= until.place]

    def resume_once_reached(self, subscriber: Subscriber) -> None:
        """Go on after the subscriber's cursor, which this hub has not reached yet."""
        subscriber.position = self._next
        self._feed(subscriber)

    def restart(self, subscriber: Subscriber) -> None:
        """Make a subscriber catch up from here, whatever lies before."""
        self._detach(subscriber)
        subscriber.cursor = self.cursor
        self.traffic.restarts += 1

    def deliver(self, batch: Batch) -> None:
        """Add a batch to the ring, and send it to every subscriber that it concerns."""
        self._ring.append(batch, self._clock())
        try:
            if batch.follows and self._cursor is not None:
                self._deliver_in_pieces(batch.events)
                self._cursor = batch.cursor
                for subscriber in list(self._slow.ahead):
                    self._feed(subscriber)
                for callback in list(self.after_delivery):
                    callback()
            else:
                self._begin_at(batch)
        finally:
            # Whatever fails: a subscriber that pauses later goes on after this batch.
            self._next, self._cursor = self._ring.head, batch.cursor

    def pause_writing(self, subscriber: Subscriber) -> None:
        """Write nothing to a subscriber until `resume_writing`: its transport buffers."""
        subscriber.is_paused = True
        if self._cohorts.leave(subscriber):
            subscriber.position, subscriber.cursor = self._next, self.cursor
            self._slow.add(subscriber)

    def resume_writing(self, subscriber: Subscriber) -> None:
        """Go on with a subscriber after its transport has sent everything."""
        subscriber.is_paused = False
        if subscriber.position == self._next:
            self._feed(subscriber)
        elif subscriber.position != CATCHING_UP:
            self._slow.add(subscriber, is_ready=True)

    def maintain(self, now: datetime, quiet_seconds: float) -> None:
        """
        Expire old events, drop slow consumers, and send heartbeats.

        To be called about once a second.
        """
        moment = self._clock()
        self._ring.expire(moment)
        self._slow.drop_fallen_off(self._ring.first)
        for cohort in self._heartbeats.due(list(self._cohorts), moment, quiet_seconds):
            text = cohort.encoding.wire_format.heartbeat(now, self.cursor)
            if text is not None:
                frame = cohort.encoding.frame(text, self.cursor)
                cohort.write(cohort.encoding.framing.keep_alive + frame, moment)

    def keeps_up(self, subscriber: Subscriber) -> bool:
        """Return True for a subscriber that was sent everything."""
        return self._cohorts.find(subscriber) is not None

    def cursor_of(self, subscriber: Subscriber) -> Cursor:
        """Return the place after all that `subscriber` was sent, or did not have to be."""
        return self.cursor if self._cohorts.find(subscriber) else subscriber.cursor

    def statistics(self) -> HubStatistics:
        return HubStatistics(
            len(self._subscribers),
            self._ring.head,
            self._ring.held_bytes,
            len(self._slow.lagging),
            len(self._cohorts),
            self._cohorts.topics.handles.statistics(),
            self._ring.age_seconds(self._clock()),
        )

    def _deliver_in_pieces(self, events: Sequence[Event]) -> None:
        """Send events in pieces that are small enough to write at once."""
        topics = self._cohorts.topics
        if len(events) == 1:
            self._deliver_piece(events, Delivery(events, topics))
            return
        for delivery in deliveries(events, topics, SLICE_BYTES):
            for piece in delivery.pieces(SLICE_BYTES):
                self._deliver_piece(piece, delivery)

    def _deliver_piece(self, piece: Sequence[Event], delivery: Delivery) -> None:
        self._fan_out(piece, delivery)
        for subscriber in [*self._sent_resets]:
            self._reloads(subscriber)
        for event in piece:
            self.caches.looked_into(event)

    def _begin_at(self, batch: Batch) -> None:
        """Begin with a batch that follows nothing: every subscriber in the ring has a gap."""
        self._next, self._cursor = self._ring.head, batch.cursor
        for subscriber in [one for one in self._subscribers if one.position != CATCHING_UP]:
            self._detach(subscriber)
            subscriber.on_gap(HistoryLost("messages were lost with a part of the log"))

    def _fan_out(self, piece: Sequence[Event], delivery: Delivery) -> None:
        now = self._clock()
        last = piece[-1]
        # Before it is sent: a subscriber that pauses meanwhile goes on after this piece.
        self._next += len(piece)
        self._cursor = last.cursor
        if last.recipient is not None:
            self._send_to_user(last.recipient, piece, delivery)
        else:
            self._send_to_cohorts(piece, delivery, now)
        if last.id in delivery.ended:
            self._send_commit(last, now)

    def _send_to_cohorts(self, piece: Sequence[Event], delivery: Delivery, now: float) -> None:
        # A reset is the last of its piece.
        reset = piece[-1] if piece[-1].operation is Operation.RESET else None
        for cohort, matched in self._cohorts.index.find(piece).items():
            if reset is not None and cohort.subscriptions.match(reset):
                self._note_resets(cohort.members, (reset,))
            cohort.deliver(matched, now)
        for one, addressed in delivery.addressed(piece).items():
            sent = {event.id: event for event, _, match, _ in addressed if is_reset(event, match)}
            self._note_resets(one.members, sent.values())
            one.deliver_addressed(addressed, now)

    def _note_resets(self, members: Iterable[Subscriber], resets: Iterable[Event]) -> None:
        """To be called before they are sent: a member that pauses meanwhile leaves its cohort."""
        for event in resets:
            for subscriber in members:
                if subscriber.reload is not None:
                    self._sent_resets.setdefault(subscriber, []).append(event)

    def _send_commit(self, event: Event, now: float) -> None:
        """Say to all who may have been sent a part of it that a transaction has ended."""
        # First those that have left their cohorts since the event was sent, and go on after it.
        for subscriber in [one for one in self._slow.lagging if one.position == self._next]:
            if isinstance(subscriber.encoding, SubscriptionEncoding):
                encode = subscriber.encoding.encode_commit
                subscriber.write(encode(event, subscriber.subscriptions))
        for cohort in self._cohorts.topics.cohorts():
            cohort.write_commit(event, now)

    def _reloads(self, subscriber: Subscriber) -> bool:
        """Return True for a subscriber that, after a reset in its chunk, catches up anew."""
        events = self._sent_resets.pop(subscriber, ())
        if not events or subscriber.reload is None:
            return False
        subscriber.reload(events)
        return subscriber.position == CATCHING_UP

    def _send_to_user(self, user: str, piece: Sequence[Event], delivery: Delivery) -> None:
        """Send private messages to those connections of their recipient that keep up."""
        resets = [event for event in piece if event.operation is Operation.RESET]
        for subscriber in list(self._of_user.get(user, ())):
            if self._cohorts.find(subscriber) is not None:
                self._note_resets([subscriber], filter(subscriber.subscriptions.match, resets))
                frames = delivery.private_frames(piece, subscriber)
                if frames:
                    joined = b"".join(frames)
                    self.traffic.add(len(frames), len(joined))
                    subscriber.send(joined)

    def _feed(self, subscriber: Subscriber) -> None:
        """Write a chunk from the ring if the subscriber takes it; see where it stands then."""
        self._slow.suspend(subscriber)
        if subscriber.position < self._next and not subscriber.is_paused:
            if subscriber.position < self._ring.first:
                self._slow.drop(subscriber)
                return
            frames = [*self._next_frames(subscriber)]
            if frames:
                chunk = b"".join(frames)
                self.traffic.add(len(frames), len(chunk))
                subscriber.write(chunk)
        if self._reloads(subscriber):
            return
        if subscriber.is_paused:
            self._slow.add(subscriber)
        elif subscriber.position < self._next:
            self._slow.add(subscriber, is_ready=True)
        elif subscriber.cursor.place > self.cursor.place:
            self._slow.add(subscriber, is_ahead=True)
        else:
            self._go_live(subscriber)

    def _go_live(self, subscriber: Subscriber) -> None:
        self._cohorts.join(subscriber)
        if subscriber.on_live is not None:
            subscriber.on_live()

    def _next_frames(self, subscriber: Subscriber) -> Iterator[bytes]:
        """Yield the next few frames, and advance the subscriber's position and cursor."""
        begin = subscriber.cursor.place
        size = 0
        most = min(CHUNK_EVENTS, self._next - subscriber.position)
        events = self._ring.since(subscriber.position, most)
        encode = subscriber.encoding.encoder(
            [event for event in events if event.place > begin],
            subscriber.subscriptions,
            subscriber.user,
        )
        for event in events:
            number = subscriber.position
            subscriber.position += 1
            if event.place <= begin:
                continue
            subscriber.cursor = event.cursor
            if subscriber.conflates and self._is_superseded(event, number, subscriber):
                self.caches.looked_into(event)
                continue
            for frame in encode(event):
                yield frame
                size += len(frame)
            self.caches.looked_into(event)
            if subscriber.subscriptions.resets(event):
                self._note_resets([subscriber], [event])
                return
            if size >= CHUNK_BYTES:
                return

    def _is_superseded(self, event: Event, number: int, subscriber: Subscriber) -> bool:
        # That a row has left or come into view is in no newer event.
        is_plain = subscriber.subscriptions.match(event) is Match.MATCHES
        return is_plain and self._conflation.is_superseded(event, number)

    def _detach(self, subscriber: Subscriber) -> None:
        self._cohorts.leave(subscriber)
        self._slow.remove(subscriber)
        subscriber.position = CATCHING_UP
