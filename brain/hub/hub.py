"""Hands every event to whomever it concerns."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from itertools import groupby
from typing import NamedTuple

from brain.errors import ConnectionEnded, HistoryLost, NotReady, TooFarBehind
from brain.hub.cohort import Cohort
from brain.hub.ring import Ring
from brain.hub.subscriber import OUTSIDE, Subscriber
from brain.message.cursor import Cursor
from brain.message.event import Batch, Event
from brain.message.frames import framed
from brain.message.topic import Anchor, Interest, Told, anchors_of
from brain.message.wire_format import WireFormat, frames_for

# How much is written to a client before it is seen whether it reads.
CHUNK_BYTES = 64 * 1024
CHUNK_EVENTS = 256
# Events take several times as much memory as their frames have bytes.
SLICE_BYTES = 4 * CHUNK_BYTES

RING_SECONDS = 60.0


def in_next_turn(work: Callable[[], None]) -> None:
    """Do some work when the event loop has seen to everything else."""
    asyncio.get_running_loop().call_soon(work)


class HubStatistics(NamedTuple):
    subscribers: int
    events: int
    """Delivered to the hub since it was made."""
    ring_bytes: int
    behind: int
    """Subscribers that have not been told everything."""
    cohorts: int


class Hub:
    """
    Knows who hears what, and keeps the recent events in one ring for all of them.

    A subscriber is outside at first: whoever made it tells it what lies before the ring. Then it is
    a member of a cohort, and is written to when something happens; or it stands apart at a
    position of its own, because it does not read as fast, and is fed from the ring as it does.

    Every method is an ordinary function. With no `await` between reading and writing, no other
    task can see the hub half changed and nothing needs a lock; and no client can hold up another,
    because none is ever waited for.
    """

    def __init__(
        self,
        ring_bytes: int,
        ring_seconds: float = RING_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        later: Callable[[Callable[[], None]], None] = in_next_turn,
    ) -> None:
        self._ring = Ring(ring_bytes, ring_seconds)
        self._clock = clock
        self._subscribers: set[Subscriber] = set()
        self._of_user: dict[str, set[Subscriber]] = {}
        self._cohorts: dict[tuple[str, Interest], Cohort] = {}
        self._listening: dict[Anchor, set[Cohort]] = {}
        """The cohorts that an event may concern."""
        self._pulsed_at: dict[str, float] = {}
        """When the clients of a format were told last that the connection lives."""
        self._later = later
        self._apart: set[Subscriber] = set()
        self._hungry: dict[Subscriber, None] = {}
        """Those apart that have not had all that they would take, in the order of their turns."""
        self._is_next_turn_taken = False
        self._told = 0
        """The number of the next event that the cohorts will be told."""
        self._told_cursor: Cursor | None = None

    @property
    def cursor(self) -> Cursor:
        """The place after the newest event. Raises `NotReady` before anything was delivered."""
        if self._told_cursor is None:
            raise NotReady("Brain does not follow the database yet")
        return self._told_cursor

    def subscribe(
        self,
        wire_format: WireFormat,
        interest: Interest,
        send_now: Callable[[bytes], int],
        write: Callable[[bytes], object],
        lose: Callable[[ConnectionEnded], None],
        *,
        after: Cursor | None = None,
        user: str | None = None,
        wants_latest: bool = False,
    ) -> Subscriber:
        """Take in a subscriber that is still outside; it will go on `after` a cursor, or here."""
        subscriber = Subscriber(
            wire_format,
            interest,
            user,
            send_now,
            write,
            lose,
            after or self.cursor,
            wants_latest=wants_latest,
        )
        self._subscribers.add(subscriber)
        if user is not None:
            self._of_user.setdefault(user, set()).add(subscriber)
        return subscriber

    def belong(self, subscriber: Subscriber, user: str) -> None:
        """Tell a subscriber from now on what only `user` is told."""
        self._of_user.setdefault(user, set()).add(subscriber)
        subscriber.user = user

    def change(self, subscriber: Subscriber, interest: Interest) -> None:
        """Have a subscriber hear something else from now on, wherever it stands."""
        is_live = self._leave_cohort(subscriber)
        subscriber.interest = interest
        if is_live:
            self._join_cohort(subscriber)

    def unsubscribe(self, subscriber: Subscriber) -> None:
        """Forget a subscriber, wherever it stands."""
        self._take_out(subscriber)
        self._subscribers.discard(subscriber)
        if subscriber.user is not None:
            others = self._of_user.get(subscriber.user, set())
            others.discard(subscriber)
            if not others:
                self._of_user.pop(subscriber.user, None)

    def resume(self, subscriber: Subscriber) -> bool:
        """Go on after the subscriber's cursor if the ring reaches back to it; return whether."""
        number = self._ring.number_after(subscriber.cursor)
        if number is None:
            return False
        subscriber.position = number
        self._feed(subscriber)
        return True

    def wait(self, subscriber: Subscriber) -> None:
        """Go on after the subscriber's cursor, which this hub has not reached yet."""
        subscriber.position = self._told
        self._feed(subscriber)

    def start_over(self, subscriber: Subscriber) -> None:
        """Be outside again, to go on from here, whatever lies before it."""
        self._take_out(subscriber)
        subscriber.cursor = self.cursor

    def deliver(self, batch: Batch) -> None:
        """Take a batch in and tell it to everybody whom it concerns."""
        self._ring.append(batch, self._clock())
        if batch.follows and self._told_cursor is not None:
            for events in slices(batch.events):
                self._told += len(events)
                self._told_cursor = events[-1].cursor
                self._tell(events)
            self._told_cursor = batch.cursor
            for subscriber in [one for one in self._apart if self._is_ahead(one)]:
                self._feed(subscriber)
        else:
            self._begin_at(batch)

    def pause(self, subscriber: Subscriber) -> None:
        """Write nothing more to a subscriber until `drain` is called."""
        subscriber.is_paused = True
        if self._leave_cohort(subscriber):
            subscriber.position, subscriber.cursor = self._told, self.cursor
            self._apart.add(subscriber)

    def drain(self, subscriber: Subscriber) -> None:
        """Go on with a subscriber that has read what was written to it."""
        subscriber.is_paused = False
        if subscriber.position == self._told:
            self._feed(subscriber)
        elif subscriber.position != OUTSIDE:
            # Not at once: hundreds may have room again in the same moment.
            self._hungry[subscriber] = None
            self._take_next_turn()

    def tick(self, now: datetime, quiet_seconds: float) -> None:
        """
        Forget what is too old, give up on who is behind it, and say something where it is quiet.

        To be called every now and then.
        """
        moment = self._clock()
        self._ring.forget(moment)
        for subscriber in [one for one in self._apart if one.position < self._ring.first]:
            self._give_up(subscriber)
        cohorts = list(self._cohorts.values())
        formats = {cohort.wire_format.name: cohort.wire_format for cohort in cohorts}
        due = {name for name in formats if self._is_pulse_due(formats[name], moment)}
        for cohort in cohorts:
            wire_format = cohort.wire_format
            is_quiet = cohort.told_at <= moment - quiet_seconds
            if wire_format.name in due or (is_quiet and wire_format.pulse_seconds is None):
                text = wire_format.pulse(now, self.cursor)
                if text is not None:
                    cohort.write(framed(text), moment)

    def reached(self, subscriber: Subscriber) -> Cursor:
        """Return the place after all that `subscriber` has been told, or had not to be."""
        return self.cursor if self._cohort_of(subscriber) else subscriber.cursor

    def statistics(self) -> HubStatistics:
        return HubStatistics(
            len(self._subscribers),
            self._ring.head,
            self._ring.held_bytes,
            len(self._apart),
            len(self._cohorts),
        )

    def _begin_at(self, batch: Batch) -> None:
        """Begin with a batch that follows nothing: all who were in the midst of something lose."""
        self._told, self._told_cursor = self._ring.head, batch.cursor
        for subscriber in [one for one in self._subscribers if one.position != OUTSIDE]:
            self._take_out(subscriber)
            subscriber.lose(HistoryLost("messages were lost with a part of the log"))

    def _is_pulse_due(self, wire_format: WireFormat, moment: float) -> bool:
        """Whether it is time for the clients of a format, which all have it at the same time."""
        if wire_format.pulse_seconds is None:
            return False
        if (
            moment
            < self._pulsed_at.setdefault(wire_format.name, moment) + wire_format.pulse_seconds
        ):
            return False
        self._pulsed_at[wire_format.name] = moment
        return True

    def _tell(self, events: Sequence[Event]) -> None:
        now = self._clock()
        for audience, run in groupby(events, key=lambda event: event.audience):
            some = tuple(run)
            if audience is not None:
                self._tell_user(audience, some)
                continue
            anchors = {anchor for event in some for anchor in anchors_of(event)}
            for cohort in {c for anchor in anchors for c in self._listening.get(anchor, ())}:
                cohort.tell(some, now)

    def _tell_user(self, user: str, events: Sequence[Event]) -> None:
        """Tell what only one user is told to those of its connections that are told live."""
        for subscriber in list(self._of_user.get(user, ())):
            if self._cohort_of(subscriber) is not None:
                told = frames_for(events, subscriber.wire_format, subscriber.interest, user)
                frames = b"".join(told)
                if frames:
                    subscriber.tell(frames)

    def _feed(self, subscriber: Subscriber) -> None:
        """Write a chunk from the ring if the subscriber takes it; see where it stands then."""
        self._apart.discard(subscriber)
        if subscriber.position < self._told and not subscriber.is_paused:
            if subscriber.position < self._ring.first:
                self._give_up(subscriber)
                return
            frames = b"".join(self._next_frames(subscriber))
            if frames:
                subscriber.write(frames)
        if subscriber.is_paused:
            self._apart.add(subscriber)
        elif subscriber.position < self._told:
            self._apart.add(subscriber)
            self._hungry[subscriber] = None
            self._take_next_turn()
        elif subscriber.cursor.place > self.cursor.place:
            self._apart.add(subscriber)
        else:
            self._join_cohort(subscriber)

    def _is_ahead(self, subscriber: Subscriber) -> bool:
        """Whether one that stands apart does so because this hub has not come as far."""
        return not subscriber.is_paused and subscriber not in self._hungry

    def _feed_next(self) -> None:
        """Feed one that is far behind; the next one is to wait, lest the others have to."""
        self._is_next_turn_taken = False
        subscriber = next(iter(self._hungry), None)
        if subscriber is None:
            return
        del self._hungry[subscriber]
        if not subscriber.is_paused:
            self._feed(subscriber)
        self._take_next_turn()

    def _take_next_turn(self) -> None:
        if self._hungry and not self._is_next_turn_taken:
            self._is_next_turn_taken = True
            self._later(self._feed_next)

    def _next_frames(self, subscriber: Subscriber) -> Iterator[bytes]:
        """Yield the next few, and advance the subscriber's position and cursor."""
        told = subscriber.cursor.place
        size = 0
        for event in self._ring.since(
            subscriber.position, min(CHUNK_EVENTS, self._told - subscriber.position)
        ):
            number = subscriber.position
            subscriber.position += 1
            if event.cursor.place <= told:
                continue
            subscriber.cursor = event.cursor
            if subscriber.wants_latest and self._is_overtaken(event, number, subscriber.interest):
                continue
            for data in frames_for(
                (event,), subscriber.wire_format, subscriber.interest, subscriber.user
            ):
                yield data
                size += len(data)
            if size >= CHUNK_BYTES:
                return

    def _is_overtaken(self, event: Event, number: int, interest: Interest) -> bool:
        # That a row has left a filter, the next event may not be told to say.
        is_leaving = interest.told(event) is Told.AS_LEAVING
        return not is_leaving and self._ring.is_passed(event, number)

    def _give_up(self, subscriber: Subscriber) -> None:
        self._take_out(subscriber)
        subscriber.lose(TooFarBehind("the client reads more slowly than messages come"))

    def _take_out(self, subscriber: Subscriber) -> None:
        self._leave_cohort(subscriber)
        self._apart.discard(subscriber)
        self._hungry.pop(subscriber, None)
        subscriber.position = OUTSIDE

    def _join_cohort(self, subscriber: Subscriber) -> None:
        key = subscriber.wire_format.name, subscriber.interest
        cohort = self._cohorts.get(key)
        if cohort is None:
            cohort = Cohort(subscriber.wire_format, subscriber.interest, self._clock())
            self._cohorts[key] = cohort
            for anchor in cohort.interest.anchors:
                self._listening.setdefault(anchor, set()).add(cohort)
        cohort.members[subscriber] = subscriber.send_now

    def _leave_cohort(self, subscriber: Subscriber) -> bool:
        """Take a subscriber out of its cohort; return whether it was in one."""
        cohort = self._cohort_of(subscriber)
        if cohort is None:
            return False
        del cohort.members[subscriber]
        if not cohort.members:
            del self._cohorts[cohort.wire_format.name, cohort.interest]
            for anchor in cohort.interest.anchors:
                self._listening[anchor].discard(cohort)
                if not self._listening[anchor]:
                    del self._listening[anchor]
        return True

    def _cohort_of(self, subscriber: Subscriber) -> Cohort | None:
        cohort = self._cohorts.get((subscriber.wire_format.name, subscriber.interest))
        return cohort if cohort is not None and subscriber in cohort.members else None


def slices(events: Sequence[Event]) -> Iterator[Sequence[Event]]:
    """Yield `events` in pieces that are not too much to write at once."""
    start = size = 0
    for number, event in enumerate(events, start=1):
        size += event.size_bytes
        if size >= SLICE_BYTES or number == len(events):
            yield events[start:number]
            start, size = number, 0
