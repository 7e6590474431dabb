from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest

from brain.database.log import OBJECT_BYTES
from brain.errors import ConnectionEnded, HistoryLost, NotReady, SlowConsumer
from brain.hub.hub import CHUNK_EVENTS, SLICE_BYTES, Hub
from brain.message.channel_schema import ChannelSchemas
from brain.message.commands import Command
from brain.message.cursor import Cursor
from brain.message.encodings import encoding_of
from brain.message.event import Batch, Event, Operation
from brain.message.matching import RowAccess, Topic, parse_filter
from brain.message.rendering import Encoding
from brain.message.subscription_set import SubscriptionSet, subscription_set
from brain.message.wire_format import WireFormat
from brain.systems.shared_tables.tasks.run_messages import RunSchema
from brain.transport.websocket_frames import WEBSOCKET_FRAMING, texts_of
from tests.message.rows import as_json, reset
from tests.subscription_sets import in_channels

TASKS = in_channels(["tasks"])


class PlainFormat(WireFormat):
    """Renders an event as its id."""

    name = "plain"

    def __init__(self, heartbeat_seconds: float | None = None) -> None:
        self.heartbeat_seconds = heartbeat_seconds

    def render(self, event: Event) -> str | None:
        return str(event.id)

    def render_leaving(self, event: Event) -> str | None:
        return f"{event.id} leaves"

    def receive(self, text: str, now: datetime, cursor: Callable[[], Cursor]) -> Sequence[Command]:
        return ()

    def heartbeat(self, now: datetime, cursor: Cursor) -> str | None:
        return f"heartbeat at {cursor.tick}"


def plain(heartbeat_seconds: float | None = None) -> Encoding:
    return encoding_of(PlainFormat(heartbeat_seconds), WEBSOCKET_FRAMING)


class Client:
    """A subscriber and its transport, which may stop reading."""

    def __init__(
        self,
        hub: Hub,
        subscriptions: SubscriptionSet = TASKS,
        after: Cursor | None = None,
        *,
        user: str | None = None,
        conflates: bool = False,
        heartbeat_seconds: float | None = None,
        reload: Callable[[Sequence[Event]], None] | None = None,
    ) -> None:
        self.hub = hub
        self.received: list[str] = []
        self.writes = 0
        self.room: int | None = None
        """The number of writes until it pauses the hub; None for no limit."""
        self.gaps: list[ConnectionEnded] = []
        self.subscriber = hub.subscribe(
            plain(heartbeat_seconds),
            subscriptions,
            self,
            self.gaps.append,
            after=after,
            user=user,
            conflates=conflates,
            reload=reload,
        )

    def stop_reading(self, after_writes: int = 0) -> None:
        self.room = after_writes
        if not self.room:
            self.hub.pause_writing(self.subscriber)

    def read(self, writes: int | None = None) -> None:
        """Resume reading, up to a number of writes if one is given."""
        self.room = writes
        self.hub.resume_writing(self.subscriber)

    def send_now(self, frames: bytes) -> int:
        self.write(frames)
        return len(frames)

    def write(self, frames: bytes) -> None:
        assert not self.subscriber.is_paused, "written to while paused"
        self.received += texts_of(frames)
        self.writes += 1
        if self.room is not None:
            self.room -= 1
            if not self.room:
                self.hub.pause_writing(self.subscriber)


class Outgoing:
    """A transport made of two functions."""

    def __init__(
        self, send_now: Callable[[bytes], int], write: Callable[[bytes], object] = print
    ) -> None:
        self.send_now = send_now
        self.write = write


def live(hub: Hub, subscriptions: SubscriptionSet = TASKS, **options: Any) -> Client:
    client = Client(hub, subscriptions, **options)
    assert hub.resume(client.subscriber)
    return client


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def event(
    id: int,
    channel: str = "tasks",
    size_bytes: int = 100,
    *,
    key: object = None,
    status: str = "queued",
) -> Event:
    return Event(
        *Cursor(tick=id // 10 + 1, nonce=5, event_id=id),
        datetime.now(UTC),
        channel,
        Operation.INSERT,
        as_json([id if key is None else key]),
        as_json({"status": status}),
        None,
        size_bytes=size_bytes,
    )


def batch(*events: Event, follows: bool = True) -> Batch:
    return Batch(events, events[-1].cursor, follows)


class Turns:
    """An event loop that runs one turn when the test asks for it."""

    def __init__(self) -> None:
        self._work: list[Callable[[], None]] = []

    def __call__(self, work: Callable[[], None]) -> None:
        self._work.append(work)

    def take(self) -> bool:
        """Run one turn; return False if there was nothing to run."""
        work, self._work = self._work, []
        assert len(work) <= 1
        for each in work:
            each()
        return bool(work)


def at_once(work: Callable[[], None]) -> None:
    work()


def new_hub(
    ring_bytes: int = 10_000,
    ring_seconds: float = 60.0,
    clock: Clock | None = None,
    later: Callable[[Callable[[], None]], None] = at_once,
) -> Hub:
    """Return a hub that has just begun to follow the log."""
    hub = Hub(ring_bytes, ring_seconds, ChannelSchemas([RunSchema()]), clock or Clock(), later)
    hub.deliver(Batch((), Cursor(0, 5)))
    return hub


def ids(first: int, end: int) -> list[str]:
    return [str(id) for id in range(first, end)]


def test_a_subscriber_gets_what_comes_after_it_subscribed_in_order() -> None:
    hub = new_hub()
    hub.deliver(batch(event(1)))
    client = live(hub)

    hub.deliver(batch(event(2), event(3)))
    hub.deliver(batch(event(4)))

    assert client.received == ["2", "3", "4"]


def test_the_messages_of_a_batch_are_one_write() -> None:
    hub = new_hub()
    client = live(hub)

    hub.deliver(batch(event(1), event(2), event(3)))

    assert client.writes == 1


def test_a_subscriber_gets_its_channels_only() -> None:
    hub = new_hub()
    tasks, agents, both = (
        live(hub),
        live(hub, in_channels(["agents"])),
        live(hub, in_channels(["tasks", "agents"])),
    )

    hub.deliver(batch(event(1, "agents"), event(2)))

    assert (tasks.received, agents.received, both.received) == (["2"], ["1"], ["1", "2"])


def test_a_batch_that_is_too_much_at_once_is_written_in_pieces() -> None:
    hub = new_hub(ring_bytes=100 * SLICE_BYTES)
    quick, slow = live(hub), live(hub)
    slow.stop_reading(after_writes=1)

    hub.deliver(batch(*(event(id, size_bytes=SLICE_BYTES // 2) for id in range(10))))

    assert quick.received == ids(0, 10)
    assert quick.writes == 5
    assert slow.received == ids(0, 2)
    slow.read()
    assert slow.received == ids(0, 10)


def test_nothing_is_kept_of_a_subscriber_that_has_left() -> None:
    hub = new_hub()
    client, paused = live(hub), live(hub)
    paused.stop_reading()
    hub.unsubscribe(client.subscriber)
    hub.unsubscribe(paused.subscriber)
    hub.deliver(batch(event(1)))

    assert client.received == paused.received == []
    left = hub.statistics()._replace(events=0, ring_bytes=0, ring_seconds=0)
    assert left == (0, 0, 0, 0, 0, (0, 0, 0, 0), 0)


def test_a_paused_subscriber_is_written_nothing_and_holds_up_no_other() -> None:
    hub = new_hub()
    quick, slow = live(hub), live(hub)
    slow.stop_reading()

    hub.deliver(batch(event(1), event(2)))
    assert (quick.received, slow.received) == (["1", "2"], [])
    assert hub.cursor_of(slow.subscriber) == Cursor(0, 5)

    slow.read()
    assert slow.received == ["1", "2"]
    hub.deliver(batch(event(3)))
    assert quick.received == slow.received == ["1", "2", "3"]
    assert hub.statistics().lagging == 0


@pytest.mark.parametrize("taken", [0, 1, 5, None])
def test_what_cannot_be_sent_at_once_is_written(taken: int | None) -> None:
    hub = new_hub()
    sent: list[bytes] = []
    written: list[bytes] = []

    def send_now(frames: bytes) -> int:
        if taken is None:
            raise BlockingIOError
        sent.append(frames[:taken])
        return taken

    def write(frames: bytes) -> None:
        written.append(frames)
        hub.pause_writing(slow)

    slow = hub.subscribe(plain(), TASKS, Outgoing(send_now, write), on_gap=print)
    assert hub.resume(slow)
    quick = live(hub)
    hub.deliver(batch(event(1), event(2)))
    assert list(texts_of(b"".join(sent + written))) == quick.received == ["1", "2"]
    assert len(written) == 1
    assert hub.cursor_of(slow) == hub.cursor

    hub.deliver(batch(event(3)))
    hub.resume_writing(slow)
    assert list(texts_of(b"".join(sent + written))) == quick.received == ["1", "2", "3"]
    assert hub.statistics().lagging == 1
    hub.resume_writing(slow)
    assert hub.statistics().lagging == 0


def test_a_slow_subscriber_is_fed_as_it_reads() -> None:
    hub = new_hub(ring_bytes=1_000_000)
    slow = live(hub)
    slow.stop_reading()
    hub.deliver(batch(*map(event, range(3 * CHUNK_EVENTS))))
    assert slow.received == []

    slow.read(writes=1)
    assert slow.received == ids(0, CHUNK_EVENTS)
    assert hub.cursor_of(slow.subscriber) == event(CHUNK_EVENTS - 1).cursor
    hub.deliver(batch(event(3 * CHUNK_EVENTS)))
    assert slow.received == ids(0, CHUNK_EVENTS)

    slow.read()
    assert slow.received == ids(0, 3 * CHUNK_EVENTS + 1)


def far_behind(hub: Hub, count: int) -> list[Client]:
    """Return clients that resume reading when each is two chunks and a few events behind."""
    clients = [live(hub) for _ in range(count)]
    for client in clients:
        client.stop_reading()
    hub.deliver(batch(*map(event, range(2 * CHUNK_EVENTS + 5))))
    for client in clients:
        client.read()
    return clients


def test_lagging_subscribers_are_fed_in_turns_and_hold_up_no_other() -> None:
    turns = Turns()
    hub = new_hub(ring_bytes=10_000_000, later=turns)
    quick = live(hub)
    first, second = far_behind(hub, 2)
    fed = []
    while turns.take():
        fed.append((len(first.received), len(second.received)))
        if len(fed) == 2:
            hub.deliver(batch(event(2 * CHUNK_EVENTS + 5)))
            assert quick.received == ids(0, 2 * CHUNK_EVENTS + 6)

    one, two, all_ = CHUNK_EVENTS, 2 * CHUNK_EVENTS, 2 * CHUNK_EVENTS + 6
    assert fed == [(one, 0), (one, one), (two, one), (two, two), (all_, two), (all_, all_)]
    assert first.received == second.received == quick.received
    assert hub.statistics().lagging == 0


def test_a_subscriber_that_leaves_or_stops_reading_before_its_turn_is_skipped() -> None:
    turns = Turns()
    hub = new_hub(ring_bytes=10_000_000, later=turns)
    leaver, stopper, reader = far_behind(hub, 3)
    hub.unsubscribe(leaver.subscriber)
    stopper.stop_reading()
    while turns.take():
        pass
    assert (leaver.received, stopper.received) == ([], [])
    assert reader.received == ids(0, 2 * CHUNK_EVENTS + 5)

    stopper.read()
    while turns.take():
        pass
    assert stopper.received == reader.received
    assert hub.statistics().lagging == 0


def test_a_subscriber_that_stops_and_reads_again_before_its_turn_is_fed_once() -> None:
    turns = Turns()
    hub = new_hub(ring_bytes=10_000_000, later=turns)
    (slow,) = far_behind(hub, 1)
    slow.stop_reading()
    slow.read()
    turns.take()
    assert slow.received == ids(0, CHUNK_EVENTS)
    while turns.take():
        pass
    assert slow.received == ids(0, 2 * CHUNK_EVENTS + 5)


def test_a_subscriber_that_falls_off_the_ring_is_dropped_instead_of_skipping_a_message() -> None:
    hub = new_hub(ring_bytes=250)
    slow = live(hub)
    slow.stop_reading()

    hub.deliver(batch(event(1), event(2), event(3)))
    slow.read()

    assert [type(reason) for reason in slow.gaps] == [SlowConsumer]
    assert slow.received == []


def test_a_subscriber_at_the_oldest_event_of_the_ring_misses_nothing() -> None:
    hub = new_hub(ring_bytes=250)
    slow = live(hub)
    hub.deliver(batch(event(1)))
    slow.stop_reading()
    hub.deliver(batch(event(2), event(3)))
    slow.read()

    assert slow.received == ["1", "2", "3"]


def test_a_subscriber_that_never_reads_is_dropped_when_its_events_expire() -> None:
    clock = Clock()
    hub = new_hub(clock=clock, ring_seconds=60)
    slow = live(hub)
    slow.stop_reading()
    hub.deliver(batch(event(1)))

    clock.now += 59
    hub.maintain(datetime.now(UTC), quiet_seconds=1000)
    assert slow.gaps == []
    clock.now += 2
    hub.maintain(datetime.now(UTC), quiet_seconds=1000)

    assert [type(reason) for reason in slow.gaps] == [SlowConsumer]


def test_the_ring_stays_within_its_bound_but_keeps_the_newest_event() -> None:
    hub = new_hub(ring_bytes=250)

    hub.deliver(batch(*map(event, range(100))))
    assert hub.statistics().ring_bytes == 200

    hub.deliver(batch(event(100, size_bytes=1000)))
    assert hub.statistics().ring_bytes == 1000


def test_the_ring_drops_old_events_and_still_knows_where_they_ended() -> None:
    clock = Clock()
    hub = new_hub(clock=clock, ring_seconds=60)
    hub.deliver(batch(event(1)))
    clock.now += 30
    hub.deliver(batch(event(2)))
    clock.now += 31
    hub.maintain(datetime.now(UTC), quiet_seconds=1000)

    assert hub.statistics().ring_bytes == 100
    assert not hub.resume(Client(hub, after=Cursor(0, 5)).subscriber)
    resumed = Client(hub, after=event(1).cursor)
    assert hub.resume(resumed.subscriber)
    assert resumed.received == ["2"]

    clock.now += 60
    hub.maintain(datetime.now(UTC), quiet_seconds=1000)
    assert hub.statistics().ring_bytes == 0
    assert hub.resume(Client(hub, after=event(2).cursor).subscriber)


def test_a_batch_that_does_not_follow_is_a_gap_for_every_subscriber() -> None:
    hub = new_hub()
    client, slow = live(hub), live(hub)
    slow.stop_reading()
    hub.deliver(Batch((), Cursor(9, 9), follows=False))

    for ended in (client, slow):
        assert [type(reason) for reason in ended.gaps] == [HistoryLost]
    newcomer = live(hub)
    hub.deliver(Batch((event(100),), Cursor(11, 5)))
    assert newcomer.received == ["100"]
    assert client.received == slow.received == []


def test_a_hub_takes_no_subscriber_before_its_first_batch() -> None:
    with pytest.raises(NotReady):
        Client(Hub(10_000, ring_seconds=60))


def test_a_subscriber_resumes_in_the_first_batch_after_a_cursor_that_the_batch_spans() -> None:
    hub = Hub(10_000, ring_seconds=60)
    ticks = (Cursor(1, 5), Cursor(2, 7), Cursor(3, 5))
    hub.deliver(Batch((event(11), event(21)), Cursor(3, 5), ticks=ticks))

    assert live(hub).received == []
    for cursor, received in (
        (Cursor(1, 5), ["11", "21"]),
        (Cursor(2, 5, 11), ["21"]),
        (Cursor(3, 5), []),
    ):
        resumed = Client(hub, after=cursor)
        assert hub.resume(resumed.subscriber) == (cursor.tick != 2)
        assert resumed.received == (received if cursor.tick != 2 else [])
    assert hub.resume(Client(hub, after=Cursor(2, 7)).subscriber)
    assert not hub.resume(Client(hub, after=Cursor(0, 5)).subscriber)


@pytest.mark.parametrize("after", range(30))
def test_a_subscriber_resumes_after_any_event_in_the_ring(after: int) -> None:
    hub = new_hub()
    for first in range(1, 30, 5):
        hub.deliver(batch(*map(event, range(first, first + 5))))
    cursor = event(after).cursor if after else Cursor(0, 5)
    client = Client(hub, after=cursor)
    assert hub.cursor_of(client.subscriber) == cursor
    assert hub.resume(client.subscriber)

    assert client.received == ids(after + 1, 31)


def test_a_subscriber_resumes_after_a_whole_tick() -> None:
    hub = new_hub()
    hub.deliver(Batch((event(1), event(2)), end := Cursor(1, 5)))
    hub.deliver(batch(event(11)))
    client = Client(hub, after=end)
    assert hub.resume(client.subscriber)

    assert client.received == ["11"]


@pytest.mark.parametrize(
    "cursor", [Cursor(0, 5), Cursor(1, 6, 9), Cursor(1, 5, 1), Cursor(7, 5), Cursor(99, 5)]
)
def test_a_cursor_that_the_ring_does_not_know_is_left_to_the_log(cursor: Cursor) -> None:
    hub = new_hub(ring_bytes=250)
    hub.deliver(batch(event(1), event(2), event(3), event(4)))
    client = Client(hub, after=cursor)
    assert not hub.resume(client.subscriber)
    assert hub.cursor_of(client.subscriber) == cursor

    hub.deliver(batch(event(5)))
    assert client.received == []


def test_a_subscriber_that_is_ahead_of_this_node_gets_nothing_twice() -> None:
    hub = new_hub()
    client = Client(hub, after=event(2).cursor)
    hub.resume_once_reached(client.subscriber)
    assert hub.cursor_of(client.subscriber) == event(2).cursor

    hub.deliver(batch(event(1)))
    assert client.received == []
    hub.deliver(batch(event(2), event(3)))

    assert client.received == ["3"]
    assert hub.cursor_of(client.subscriber) == hub.cursor
    assert hub.statistics().lagging == 0


def test_a_subscriber_that_is_ahead_keeps_up_once_the_node_has_reached_its_cursor() -> None:
    hub = new_hub()
    client = Client(hub, after=Cursor(4, 5))
    hub.resume_once_reached(client.subscriber)
    assert hub.statistics().lagging == 1

    hub.deliver(Batch((), Cursor(4, 5)))

    assert hub.statistics().lagging == 0


def test_a_subscriber_that_is_ahead_may_stop_reading_meanwhile() -> None:
    hub = new_hub()
    client = Client(hub, after=event(2).cursor)
    hub.resume_once_reached(client.subscriber)
    client.stop_reading()
    hub.deliver(batch(event(1)))
    client.read()
    hub.deliver(batch(event(2)))
    client.stop_reading()
    hub.deliver(batch(event(3)))
    assert client.received == []

    client.read()
    assert client.received == ["3"]
    assert hub.statistics().lagging == 0


def test_a_batch_visits_no_lagging_subscriber_but_those_that_are_ahead() -> None:
    hub = new_hub()
    ahead, slow = Client(hub, after=event(2).cursor), live(hub)
    hub.resume_once_reached(ahead.subscriber)
    slow.stop_reading()
    assert hub._slow.lagging == {ahead.subscriber, slow.subscriber}
    assert hub._slow.ahead == {ahead.subscriber}

    hub.deliver(batch(event(1), event(2)))
    assert hub._slow.ahead == set()


def test_the_cursor_of_a_subscriber_that_gets_nothing_advances() -> None:
    hub = new_hub()
    client = live(hub)
    hub.deliver(Batch((), Cursor(4, 5)))
    assert hub.cursor_of(client.subscriber) == Cursor(4, 5)

    hub.deliver(batch(event(51, "agents")))
    assert client.received == []
    assert hub.cursor_of(client.subscriber) == hub.cursor


def test_a_subscriber_may_restart_after_a_gap() -> None:
    hub = new_hub()
    client = live(hub)
    hub.deliver(Batch((), Cursor(9, 9), follows=False))
    hub.restart(client.subscriber)
    assert hub.resume(client.subscriber)
    hub.deliver(Batch((event(100),), Cursor(11, 5)))

    assert client.received == ["100"]
    assert not hub.resume(Client(hub, after=Cursor(0, 5)).subscriber)


def test_a_quiet_cohort_is_sent_a_heartbeat() -> None:
    clock = Clock()
    hub = new_hub(clock=clock)
    client, slow = live(hub), live(hub)
    slow.stop_reading()
    clock.now += 10
    hub.maintain(datetime.now(UTC), quiet_seconds=20)
    assert client.received == []

    clock.now += 10
    hub.maintain(datetime.now(UTC), quiet_seconds=20)
    hub.maintain(datetime.now(UTC), quiet_seconds=20)
    assert client.received == ["heartbeat at 0"]
    assert slow.received == []

    hub.deliver(batch(event(1)))
    clock.now += 19
    hub.maintain(datetime.now(UTC), quiet_seconds=20)
    assert client.received == ["heartbeat at 0", "1"]


def test_a_subscriber_that_conflates_skips_what_was_superseded_while_it_lagged() -> None:
    hub = new_hub()
    everything, conflating = live(hub), live(hub, conflates=True)
    hub.deliver(batch(event(1, key="a"), event(2, key="a")))
    assert conflating.received == ["1", "2"]

    for client in (everything, conflating):
        client.stop_reading()
    hub.deliver(
        batch(
            event(3, key="a"),
            event(4, key="b", status="completed"),
            event(5, key="b"),
            event(6, key="a", status="failed"),
            event(7, key="b"),
            event(8, "others", key="a"),
            event(9, key="a"),
        )
    )
    for client in (everything, conflating):
        client.read()

    assert everything.received == ["1", "2", "3", "4", "5", "6", "7", "9"]
    assert conflating.received == ["1", "2", "4", "6", "7", "9"]


def test_a_superseded_event_is_skipped_after_older_events_have_left_the_ring() -> None:
    hub = new_hub(ring_bytes=350)
    conflating = live(hub, conflates=True)
    hub.deliver(batch(*(event(id, key="a") for id in range(1, 6))))
    conflating.stop_reading()
    hub.deliver(batch(event(6, key="a"), event(7, key="b"), event(8, key="b")))
    conflating.read()

    assert conflating.received == ["1", "2", "3", "4", "5", "6", "8"]


def private(user: str, id: int) -> Event:
    return event(id).with_values(recipient=user)


def test_a_private_message_goes_to_all_connections_of_its_recipient_alone_and_in_order() -> None:
    hub = new_hub()
    ann, also_ann, bob, anonymous = (live(hub, user=user) for user in ("ann", "ann", "bob", None))
    hub.deliver(batch(event(1), private("ann", 2), event(3), private("bob", 4), event(5)))

    assert ann.received == also_ann.received == ["1", "2", "3", "5"]
    assert bob.received == ["1", "3", "4", "5"]
    assert anonymous.received == ["1", "3", "5"]


@pytest.mark.parametrize("writes", [1, 2, 3])
def test_a_client_that_pauses_between_private_and_other_messages_misses_none(writes: int) -> None:
    hub = new_hub()
    ann = live(hub, user="ann")
    ann.stop_reading(after_writes=writes)
    hub.deliver(batch(event(1), private("ann", 2), event(3)))
    assert ann.received == ids(1, writes + 1)
    assert hub.cursor_of(ann.subscriber) == event(writes).cursor

    ann.read()
    assert ann.received == ids(1, 4)
    assert hub.cursor_of(ann.subscriber) == hub.cursor


def test_a_private_message_goes_to_its_recipient_from_the_ring_too() -> None:
    hub = new_hub()
    ann, bob = live(hub, user="ann"), live(hub, user="bob")
    for client in (ann, bob):
        client.stop_reading()
    hub.deliver(batch(event(1), private("ann", 2)))
    for client in (ann, bob):
        client.read()

    assert (ann.received, bob.received) == (["1", "2"], ["1"])


def test_a_subscriber_gets_private_messages_from_when_it_is_assigned_a_user() -> None:
    hub = new_hub()
    client = live(hub)
    hub.deliver(batch(private("ann", 1)))
    hub.assign_user(client.subscriber, "ann")
    hub.deliver(batch(private("ann", 2)))
    hub.unsubscribe(client.subscriber)
    hub.deliver(batch(private("ann", 3)))

    assert client.received == ["2"]


@pytest.mark.parametrize("is_reading", [True, False])
def test_the_subscriptions_of_a_subscriber_may_change(is_reading: bool) -> None:
    hub = new_hub()
    client = live(hub)
    if not is_reading:
        client.stop_reading()
    hub.change_subscriptions(client.subscriber, in_channels(["agents"]))
    hub.deliver(batch(event(1), event(2, channel="agents")))
    if not is_reading:
        client.read()

    assert client.received == ["2"]
    hub.change_subscriptions(client.subscriber, in_channels([]))
    hub.deliver(batch(event(3, channel="agents")))
    assert client.received == ["2"]
    assert hub.statistics().cohorts == 1


def test_a_row_that_leaves_a_filter_is_sent_as_leaving() -> None:
    hub = new_hub()
    filtered = subscription_set(frozenset({Topic("tasks", where=parse_filter({"agent": "dev"}))}))
    client, whole = live(hub, filtered), live(hub)
    changes = [
        event(number).with_values(
            operation=Operation.UPDATE,
            data=as_json({"agent": new}),
            old=as_json({"agent": old}),
        )
        for number, (old, new) in enumerate([("ops", "dev"), ("dev", "ops"), ("ops", "qa")], 1)
    ]
    hub.deliver(batch(*changes))

    assert client.received == ["1", "2 leaves"]
    assert whole.received == ["1", "2", "3"]


def test_that_a_row_has_left_a_filter_is_sent_even_if_a_newer_event_supersedes_it() -> None:
    hub = new_hub()
    filtered = subscription_set(frozenset({Topic("agents", where=parse_filter({"state": "busy"}))}))
    client = live(hub, filtered, conflates=True)
    client.stop_reading()
    changes = [
        event(number, channel="agents").with_values(
            operation=Operation.UPDATE,
            key='["a"]',
            data=as_json({"state": new}),
            old=as_json({"state": old}),
        )
        for number, (old, new) in enumerate([("busy", "idle"), ("idle", "off")], 1)
    ]
    hub.deliver(batch(*changes))
    client.read()

    assert client.received == ["1 leaves"]


def test_that_a_row_comes_into_view_is_sent_even_if_a_newer_event_supersedes_it() -> None:
    hub = new_hub()
    own = RowAccess('{"": [1], "owner": ["ann"]}')
    client = live(hub, subscription_set(frozenset({Topic("agents", rows=own)})), conflates=True)
    client.stop_reading()
    owners = [("ben", "ann"), ("ann", "ann"), ("ann", "ann"), ("ann", "ben"), ("ben", "ben")]
    changes = [
        event(number, channel="agents").with_values(
            operation=Operation.UPDATE,
            key='["a"]',
            data=as_json({"state": "busy"}),
            old=as_json({"state": "idle"}),
            rule_values=as_json({"": 1, "owner": after}),
            old_rule_values=as_json({"": 1, "owner": before}),
        )
        for number, (before, after) in enumerate(owners, 1)
    ]
    hub.deliver(batch(*changes[:3]))
    client.read()
    client.stop_reading()
    hub.deliver(batch(*changes[3:]))
    client.read()

    assert client.received == ["1", "3", "4 leaves"]


def test_clients_of_a_format_with_an_interval_get_heartbeats_at_the_same_time() -> None:
    clock = Clock()
    hub = new_hub(clock=clock)
    first = live(hub, heartbeat_seconds=30)
    hub.maintain(datetime.now(UTC), 1000)
    clock.now += 20
    second = live(hub, in_channels(["agents"]), heartbeat_seconds=30)
    hub.deliver(batch(event(1)))
    for seconds in (9, 2, 29, 1):
        clock.now += seconds
        hub.maintain(datetime.now(UTC), 1000)

    assert first.received == ["1", "heartbeat at 1", "heartbeat at 1"]
    assert second.received == ["heartbeat at 1", "heartbeat at 1"]


def test_a_fan_out_to_many_gives_the_garbage_collector_nothing_to_do() -> None:
    hub = new_hub()
    gc_counts: list[int] = []

    def send_now(frames: bytes) -> int:
        gc_counts.append(gc.get_count()[0])
        return len(frames)

    encoding, outgoing = plain(), Outgoing(send_now)
    for _ in range(1000):
        hub.resume(hub.subscribe(encoding, TASKS, outgoing, on_gap=print))
    gc.disable()
    try:
        before = gc.get_count()[0]
        hub.deliver(batch(event(11)))
    finally:
        gc.enable()

    assert len(gc_counts) == 1000
    assert max(gc_counts) - before < 100


RESET = Batch((reset("tasks"),), reset("tasks").cursor)


def test_a_client_that_wants_the_rows_gets_them_again_after_a_reset() -> None:
    reloaded: list[str] = []

    def reload(name: str, events: Sequence[Event]) -> None:
        assert [event.operation for event in events] == [Operation.RESET]
        reloaded.append(name)

    turns: list[Callable[[], None]] = []
    hub = Hub(1_000_000, 60, later=turns.append)
    hub.deliver(Batch((), Cursor(1, 1)))
    live(hub, reload=partial(reload, "keeps up"))
    live(hub, reload=partial(reload, "pauses")).stop_reading(after_writes=1)
    lagging = live(hub, reload=partial(reload, "lags"))
    lagging.stop_reading()
    live(hub, in_channels(["others"]), reload=partial(reload, "of another channel"))
    live(hub)

    hub.deliver(RESET)

    assert sorted(reloaded) == ["keeps up", "pauses"]

    lagging.read()
    turns.pop()()
    assert lagging.received == [str(RESET.events[0].id)]
    assert reloaded[-1] == "lags"


def test_what_fails_in_a_batch_leaves_the_others_where_they_are() -> None:
    hub = new_hub()
    good, bad = live(hub), live(hub, in_channels(["tasks", "agents"]))

    def fail(frames: bytes) -> int:
        raise RuntimeError("a mistake")

    hub.unsubscribe(bad.subscriber)
    broken = hub.subscribe(
        plain(), in_channels(["tasks", "agents"]), Outgoing(fail), on_gap=print, after=hub.cursor
    )
    assert hub.resume(broken)
    with pytest.raises(RuntimeError):
        hub.deliver(batch(event(1), event(2).with_values(recipient="ann"), event(3)))
    hub.unsubscribe(broken)

    hub.deliver(batch(event(4)))
    good.stop_reading()
    hub.deliver(batch(event(5)))
    good.read()
    hub.deliver(batch(event(6)))

    assert good.received[-3:] == ["4", "5", "6"]


def wide_event(id: int) -> Event:
    """Return an update of a row with 500 columns, with the size that the log counts for it."""
    data, old = (as_json({f"c{n}": n + id for n in range(start, 500)}) for start in (0, 1))
    return Event(
        tick=id,
        nonce=5,
        id=id,
        at=datetime.now(UTC),
        channel="tasks",
        operation=Operation.UPDATE,
        key=as_json([str(id)]),
        data=data,
        old=old,
        size_bytes=OBJECT_BYTES + 2 * (len(data) + len(old)),
    )


@pytest.mark.parametrize("way", ["live", "lagging", "conflating"])
def test_the_ring_takes_little_more_memory_than_it_counts(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many filters have looked into the events."""
    monkeypatch.setattr("brain.hub.hub.CACHED_BYTES", 100_000)
    hub = new_hub(ring_bytes=100_000_000)
    clients = [
        live(
            hub,
            subscription_set(frozenset({Topic("tasks", where=parse_filter({"c7": n + 8}))})),
            conflates=way == "conflating",
        )
        for n in range(6)
    ]
    if way != "live":
        for client in clients:
            client.stop_reading()

    tracemalloc.start()
    for id in range(1, 41):
        hub.deliver(batch(wide_event(id)))
    for client in clients:
        if client.subscriber.is_paused:
            client.read()
    gc.collect()
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert sum(len(client.received) for client in clients) == 6
    assert kept < 1.5 * hub.statistics().ring_bytes


def test_what_clients_are_sent_counts_once_for_each_of_them() -> None:
    hub = new_hub()
    quick, slow = [live(hub), live(hub)], live(hub)
    slow.stop_reading()
    hub.deliver(batch(event(1), event(2)))
    assert hub.traffic.messages == 4
    slow.read()
    assert slow.received == quick[0].received == ["1", "2"]
    assert hub.traffic.messages == 6
    frames = len(b"".join(map(WEBSOCKET_FRAMING.frame, slow.received)))
    assert hub.traffic.bytes == 3 * frames
