from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from brain.errors import ConnectionEnded, HistoryLost, NotReady, TooFarBehind
from brain.hub.hub import CHUNK_EVENTS, SLICE_BYTES, Hub
from brain.message.acts import Act
from brain.message.cursor import Cursor
from brain.message.event import Batch, Event, Operation
from brain.message.frames import texts_of
from brain.message.snapshot import Snapshot
from brain.message.topic import Interest, Topic, interest_in, where_of
from brain.message.wire_format import SERVICE_RESTART, Welcome
from tests.interests import in_channels

TASKS = in_channels(["tasks"])


class PlainFormat:
    """Says an event's id."""

    name = "plain"

    def __init__(self, pulse_seconds: float | None = None) -> None:
        self.pulse_seconds = pulse_seconds
        self.silence_seconds: float | None = None
        self.going_away_code = SERVICE_RESTART

    def greet(self, welcome: Welcome) -> Iterator[str]:
        yield "hello"

    def render(self, event: Event) -> str | None:
        return str(event.id)

    def render_leaving(self, event: Event) -> str | None:
        return f"{event.id} leaves"

    def hear(self, text: str, now: datetime, cursor: Cursor) -> Sequence[Act]:
        return ()

    def confirm(self, act: Act, now: datetime) -> str | None:
        return None

    def reject(self, why: str, now: datetime) -> str | None:
        return None

    def pulse(self, now: datetime, cursor: Cursor) -> str | None:
        return f"still at {cursor.tick}"

    def reset(self, reason: str, now: datetime, cursor: Cursor) -> str | None:
        return None

    def tell_snapshot(self, snapshot: Snapshot, now: datetime) -> Iterator[str]:
        return iter(())


class Client:
    """Subscribes, and reads what it is written, or does not."""

    def __init__(
        self,
        hub: Hub,
        interest: Interest = TASKS,
        after: Cursor | None = None,
        *,
        user: str | None = None,
        wants_latest: bool = False,
        pulse_seconds: float | None = None,
    ) -> None:
        self.hub = hub
        self.heard: list[str] = []
        self.writes = 0
        self.room: int | None = None
        """How many more writes it takes before it has to be waited for."""
        self.lost: list[ConnectionEnded] = []
        self.subscriber = hub.subscribe(
            PlainFormat(pulse_seconds),
            interest,
            self._send,
            self._write,
            self.lost.append,
            after=after,
            user=user,
            wants_latest=wants_latest,
        )

    def stop_reading(self, after_writes: int = 0) -> None:
        self.room = after_writes
        if not self.room:
            self.hub.pause(self.subscriber)

    def read(self, writes: int | None = None) -> None:
        """Read on, all or so much."""
        self.room = writes
        self.hub.drain(self.subscriber)

    def _send(self, frames: bytes) -> int:
        self._write(frames)
        return len(frames)

    def _write(self, frames: bytes) -> None:
        assert not self.subscriber.is_paused, "written to, although it does not read"
        self.heard += texts_of(frames)
        self.writes += 1
        if self.room is not None:
            self.room -= 1
            if not self.room:
                self.hub.pause(self.subscriber)


def live(hub: Hub, interest: Interest = TASKS, **options: Any) -> Client:
    client = Client(hub, interest, **options)
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
        Cursor(tick=id // 10 + 1, nonce=5, event_id=id),
        datetime.now(UTC),
        channel,
        Operation.INSERT,
        [id if key is None else key],
        {"status": status},
        None,
        size_bytes=size_bytes,
    )


def batch(*events: Event, follows: bool = True) -> Batch:
    return Batch(events, events[-1].cursor, follows)


class Turns:
    """The event loop, turn by turn."""

    def __init__(self) -> None:
        self._work: list[Callable[[], None]] = []

    def __call__(self, work: Callable[[], None]) -> None:
        self._work.append(work)

    def take(self) -> bool:
        """Take a turn; return whether there was anything to do."""
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
    hub = Hub(ring_bytes, ring_seconds, clock or Clock(), later)
    hub.deliver(Batch((), Cursor(0, 5)))
    return hub


def ids(first: int, end: int) -> list[str]:
    return [str(id) for id in range(first, end)]


def test_a_subscriber_is_told_what_comes_after_it_subscribed_in_order() -> None:
    hub = new_hub()
    hub.deliver(batch(event(1)))
    client = live(hub)

    hub.deliver(batch(event(2), event(3)))
    hub.deliver(batch(event(4)))

    assert client.heard == ["2", "3", "4"]


def test_the_messages_of_a_batch_are_one_write() -> None:
    hub = new_hub()
    client = live(hub)

    hub.deliver(batch(event(1), event(2), event(3)))

    assert client.writes == 1


def test_a_subscriber_hears_its_channels_only() -> None:
    hub = new_hub()
    tasks, agents, both = (
        live(hub),
        live(hub, in_channels(["agents"])),
        live(hub, in_channels(["tasks", "agents"])),
    )

    hub.deliver(batch(event(1, "agents"), event(2)))

    assert (tasks.heard, agents.heard, both.heard) == (["2"], ["1"], ["1", "2"])


def test_a_batch_that_is_too_much_at_once_is_written_in_pieces() -> None:
    hub = new_hub(ring_bytes=100 * SLICE_BYTES)
    quick, slow = live(hub), live(hub)
    slow.stop_reading(after_writes=1)

    hub.deliver(batch(*(event(id, size_bytes=SLICE_BYTES // 2) for id in range(10))))

    assert quick.heard == ids(0, 10)
    assert quick.writes == 5
    assert slow.heard == ids(0, 2)
    slow.read()
    assert slow.heard == ids(0, 10)


def test_a_subscriber_that_left_is_forgotten() -> None:
    hub = new_hub()
    client, paused = live(hub), live(hub)
    paused.stop_reading()
    hub.unsubscribe(client.subscriber)
    hub.unsubscribe(paused.subscriber)
    hub.deliver(batch(event(1)))

    assert client.heard == paused.heard == []
    assert hub.statistics()._replace(events=0, ring_bytes=0) == (0, 0, 0, 0, 0)


def test_one_that_does_not_read_is_written_nothing_and_holds_up_nobody() -> None:
    hub = new_hub()
    quick, slow = live(hub), live(hub)
    slow.stop_reading()

    hub.deliver(batch(event(1), event(2)))
    assert (quick.heard, slow.heard) == (["1", "2"], [])
    assert hub.reached(slow.subscriber) == Cursor(0, 5)

    slow.read()
    assert slow.heard == ["1", "2"]
    hub.deliver(batch(event(3)))
    assert quick.heard == slow.heard == ["1", "2", "3"]
    assert hub.statistics().behind == 0


@pytest.mark.parametrize("taken", [0, 1, 5, None])
def test_what_cannot_be_sent_at_once_is_written(taken: int | None) -> None:
    hub = new_hub()
    sent: list[bytes] = []
    written: list[bytes] = []

    def send(frames: bytes) -> int:
        if taken is None:
            raise BlockingIOError
        sent.append(frames[:taken])
        return taken

    def write(frames: bytes) -> None:
        written.append(frames)
        hub.pause(slow)

    slow = hub.subscribe(PlainFormat(), TASKS, send, write, lose=lambda reason: None)
    assert hub.resume(slow)
    quick = live(hub)
    hub.deliver(batch(event(1), event(2)))
    assert list(texts_of(b"".join(sent + written))) == quick.heard == ["1", "2"]
    assert len(written) == 1
    assert hub.reached(slow) == hub.cursor

    hub.deliver(batch(event(3)))
    hub.drain(slow)
    assert list(texts_of(b"".join(sent + written))) == quick.heard == ["1", "2", "3"]
    assert hub.statistics().behind == 1
    hub.drain(slow)
    assert hub.statistics().behind == 0


def test_one_that_reads_bit_by_bit_is_fed_as_it_reads() -> None:
    hub = new_hub(ring_bytes=1_000_000)
    slow = live(hub)
    slow.stop_reading()
    hub.deliver(batch(*map(event, range(3 * CHUNK_EVENTS))))
    assert slow.heard == []

    slow.read(writes=1)
    assert slow.heard == ids(0, CHUNK_EVENTS)
    assert hub.reached(slow.subscriber) == event(CHUNK_EVENTS - 1).cursor
    hub.deliver(batch(event(3 * CHUNK_EVENTS)))
    assert slow.heard == ids(0, CHUNK_EVENTS)

    slow.read()
    assert slow.heard == ids(0, 3 * CHUNK_EVENTS + 1)


def far_behind(hub: Hub, count: int) -> list[Client]:
    """Return clients that begin to read again when there are two chunks and a bit for each."""
    clients = [live(hub) for _ in range(count)]
    for client in clients:
        client.stop_reading()
    hub.deliver(batch(*map(event, range(2 * CHUNK_EVENTS + 5))))
    for client in clients:
        client.read()
    return clients


def test_those_who_are_far_behind_are_fed_in_turns_and_hold_up_nobody() -> None:
    turns = Turns()
    hub = new_hub(ring_bytes=10_000_000, later=turns)
    quick = live(hub)
    first, second = far_behind(hub, 2)
    fed = []
    while turns.take():
        fed.append((len(first.heard), len(second.heard)))
        if len(fed) == 2:
            hub.deliver(batch(event(2 * CHUNK_EVENTS + 5)))
            assert quick.heard == ids(0, 2 * CHUNK_EVENTS + 6)

    one, two, all_ = CHUNK_EVENTS, 2 * CHUNK_EVENTS, 2 * CHUNK_EVENTS + 6
    assert fed == [(one, 0), (one, one), (two, one), (two, two), (all_, two), (all_, all_)]
    assert first.heard == second.heard == quick.heard
    assert hub.statistics().behind == 0


def test_one_that_leaves_or_stops_reading_before_its_turn_is_passed_over() -> None:
    turns = Turns()
    hub = new_hub(ring_bytes=10_000_000, later=turns)
    leaver, stopper, reader = far_behind(hub, 3)
    hub.unsubscribe(leaver.subscriber)
    stopper.stop_reading()
    while turns.take():
        pass
    assert (leaver.heard, stopper.heard) == ([], [])
    assert reader.heard == ids(0, 2 * CHUNK_EVENTS + 5)

    stopper.read()
    while turns.take():
        pass
    assert stopper.heard == reader.heard
    assert hub.statistics().behind == 0


def test_one_that_stops_and_reads_again_before_its_turn_is_fed_once() -> None:
    turns = Turns()
    hub = new_hub(ring_bytes=10_000_000, later=turns)
    (slow,) = far_behind(hub, 1)
    slow.stop_reading()
    slow.read()
    turns.take()
    assert slow.heard == ids(0, CHUNK_EVENTS)
    while turns.take():
        pass
    assert slow.heard == ids(0, 2 * CHUNK_EVENTS + 5)


def test_one_that_falls_off_the_ring_is_told_instead_of_skipping_a_message() -> None:
    hub = new_hub(ring_bytes=250)
    slow = live(hub)
    slow.stop_reading()

    hub.deliver(batch(event(1), event(2), event(3)))
    slow.read()

    assert [type(reason) for reason in slow.lost] == [TooFarBehind]
    assert slow.heard == []


def test_one_exactly_at_the_oldest_event_loses_nothing() -> None:
    hub = new_hub(ring_bytes=250)
    slow = live(hub)
    hub.deliver(batch(event(1)))
    slow.stop_reading()
    hub.deliver(batch(event(2), event(3)))
    slow.read()

    assert slow.heard == ["1", "2", "3"]


def test_one_that_falls_off_is_given_up_without_ever_reading() -> None:
    clock = Clock()
    hub = new_hub(clock=clock, ring_seconds=60)
    slow = live(hub)
    slow.stop_reading()
    hub.deliver(batch(event(1)))

    clock.now += 59
    hub.tick(datetime.now(UTC), quiet_seconds=1000)
    assert slow.lost == []
    clock.now += 2
    hub.tick(datetime.now(UTC), quiet_seconds=1000)

    assert [type(reason) for reason in slow.lost] == [TooFarBehind]


def test_the_ring_stays_within_its_bound_but_keeps_the_newest_event() -> None:
    hub = new_hub(ring_bytes=250)

    hub.deliver(batch(*map(event, range(100))))
    assert hub.statistics().ring_bytes == 200

    hub.deliver(batch(event(100, size_bytes=1000)))
    assert hub.statistics().ring_bytes == 1000


def test_the_ring_forgets_what_is_old_but_not_where_it_ended() -> None:
    clock = Clock()
    hub = new_hub(clock=clock, ring_seconds=60)
    hub.deliver(batch(event(1)))
    clock.now += 30
    hub.deliver(batch(event(2)))
    clock.now += 31
    hub.tick(datetime.now(UTC), quiet_seconds=1000)

    assert hub.statistics().ring_bytes == 100
    assert not hub.resume(Client(hub, after=Cursor(0, 5)).subscriber)
    resumed = Client(hub, after=event(1).cursor)
    assert hub.resume(resumed.subscriber)
    assert resumed.heard == ["2"]

    clock.now += 60
    hub.tick(datetime.now(UTC), quiet_seconds=1000)
    assert hub.statistics().ring_bytes == 0
    assert hub.resume(Client(hub, after=event(2).cursor).subscriber)


def test_a_batch_that_does_not_follow_ends_every_subscriber() -> None:
    hub = new_hub()
    client, slow = live(hub), live(hub)
    slow.stop_reading()
    hub.deliver(Batch((), Cursor(9, 9), follows=False))

    for ended in (client, slow):
        assert [type(reason) for reason in ended.lost] == [HistoryLost]
    newcomer = live(hub)
    hub.deliver(Batch((event(100),), Cursor(11, 5)))
    assert newcomer.heard == ["100"]
    assert client.heard == slow.heard == []


def test_a_hub_that_has_heard_nothing_yet_takes_nobody() -> None:
    with pytest.raises(NotReady):
        Client(Hub(10_000))


def test_the_recent_past_is_told_to_whoever_comes_back_to_it_and_to_nobody_else() -> None:
    hub = Hub(10_000)
    ticks = (Cursor(1, 5), Cursor(2, 7), Cursor(3, 5))
    hub.deliver(Batch((event(11), event(21)), Cursor(3, 5), ticks=ticks))

    assert live(hub).heard == []
    for cursor, heard in (
        (Cursor(1, 5), ["11", "21"]),
        (Cursor(2, 5, 11), ["21"]),
        (Cursor(3, 5), []),
    ):
        resumed = Client(hub, after=cursor)
        assert hub.resume(resumed.subscriber) == (cursor.tick != 2)
        assert resumed.heard == (heard if cursor.tick != 2 else [])
    assert hub.resume(Client(hub, after=Cursor(2, 7)).subscriber)
    assert not hub.resume(Client(hub, after=Cursor(0, 5)).subscriber)


@pytest.mark.parametrize("after", range(30))
def test_a_subscriber_resumes_after_any_event_in_the_ring(after: int) -> None:
    hub = new_hub()
    for first in range(1, 30, 5):
        hub.deliver(batch(*map(event, range(first, first + 5))))
    cursor = event(after).cursor if after else Cursor(0, 5)
    client = Client(hub, after=cursor)
    assert hub.reached(client.subscriber) == cursor
    assert hub.resume(client.subscriber)

    assert client.heard == ids(after + 1, 31)


def test_a_subscriber_resumes_after_a_whole_tick() -> None:
    hub = new_hub()
    hub.deliver(Batch((event(1), event(2)), end := Cursor(1, 5)))
    hub.deliver(batch(event(11)))
    client = Client(hub, after=end)
    assert hub.resume(client.subscriber)

    assert client.heard == ["11"]


@pytest.mark.parametrize(
    "cursor", [Cursor(0, 5), Cursor(1, 6, 9), Cursor(1, 5, 1), Cursor(7, 5), Cursor(99, 5)]
)
def test_a_cursor_that_the_ring_cannot_tell_is_left_to_the_log(cursor: Cursor) -> None:
    hub = new_hub(ring_bytes=250)
    hub.deliver(batch(event(1), event(2), event(3), event(4)))
    client = Client(hub, after=cursor)
    assert not hub.resume(client.subscriber)
    assert hub.reached(client.subscriber) == cursor

    hub.deliver(batch(event(5)))
    assert client.heard == []


def test_a_subscriber_that_is_ahead_of_this_node_is_told_nothing_twice() -> None:
    hub = new_hub()
    client = Client(hub, after=event(2).cursor)
    hub.wait(client.subscriber)
    assert hub.reached(client.subscriber) == event(2).cursor

    hub.deliver(batch(event(1)))
    assert client.heard == []
    hub.deliver(batch(event(2), event(3)))

    assert client.heard == ["3"]
    assert hub.reached(client.subscriber) == hub.cursor
    assert hub.statistics().behind == 0


def test_a_subscriber_that_is_ahead_keeps_up_once_the_node_has_come_as_far() -> None:
    hub = new_hub()
    client = Client(hub, after=Cursor(4, 5))
    hub.wait(client.subscriber)
    assert hub.statistics().behind == 1

    hub.deliver(Batch((), Cursor(4, 5)))

    assert hub.statistics().behind == 0


def test_the_cursor_of_a_subscriber_that_has_nothing_to_hear_moves_on() -> None:
    hub = new_hub()
    client = live(hub)
    hub.deliver(Batch((), Cursor(4, 5)))
    assert hub.reached(client.subscriber) == Cursor(4, 5)

    hub.deliver(batch(event(51, "agents")))
    assert client.heard == []
    assert hub.reached(client.subscriber) == hub.cursor


def test_a_subscriber_may_start_over_after_a_loss() -> None:
    hub = new_hub()
    client = live(hub)
    hub.deliver(Batch((), Cursor(9, 9), follows=False))
    hub.start_over(client.subscriber)
    assert hub.resume(client.subscriber)
    hub.deliver(Batch((event(100),), Cursor(11, 5)))

    assert client.heard == ["100"]
    assert not hub.resume(Client(hub, after=Cursor(0, 5)).subscriber)


def test_where_it_is_quiet_something_is_said() -> None:
    clock = Clock()
    hub = new_hub(clock=clock)
    client, slow = live(hub), live(hub)
    slow.stop_reading()
    clock.now += 10
    hub.tick(datetime.now(UTC), quiet_seconds=20)
    assert client.heard == []

    clock.now += 10
    hub.tick(datetime.now(UTC), quiet_seconds=20)
    hub.tick(datetime.now(UTC), quiet_seconds=20)
    assert client.heard == ["still at 0"]
    assert slow.heard == []

    hub.deliver(batch(event(1)))
    clock.now += 19
    hub.tick(datetime.now(UTC), quiet_seconds=20)
    assert client.heard == ["still at 0", "1"]


def test_who_wants_the_latest_is_spared_what_was_overtaken_while_it_did_not_read() -> None:
    hub = new_hub()
    all_of_it, latest = live(hub), live(hub, wants_latest=True)
    hub.deliver(batch(event(1, key="a"), event(2, key="a")))
    assert latest.heard == ["1", "2"]

    for client in (all_of_it, latest):
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
    for client in (all_of_it, latest):
        client.read()

    assert all_of_it.heard == ["1", "2", "3", "4", "5", "6", "7", "9"]
    assert latest.heard == ["1", "2", "4", "6", "7", "9"]


def test_what_is_overtaken_is_known_after_older_events_have_gone() -> None:
    hub = new_hub(ring_bytes=350)
    latest = live(hub, wants_latest=True)
    hub.deliver(batch(*(event(id, key="a") for id in range(1, 6))))
    latest.stop_reading()
    hub.deliver(batch(event(6, key="a"), event(7, key="b"), event(8, key="b")))
    latest.read()

    assert latest.heard == ["1", "2", "3", "4", "5", "6", "8"]


def told_to(user: str, id: int) -> Event:
    return replace(event(id), audience=user)


def test_what_one_user_is_told_nobody_else_hears_and_the_order_is_kept() -> None:
    hub = new_hub()
    ann, also_ann, bob, nobody = (live(hub, user=user) for user in ("ann", "ann", "bob", None))
    hub.deliver(batch(event(1), told_to("ann", 2), event(3), told_to("bob", 4), event(5)))

    assert ann.heard == also_ann.heard == ["1", "2", "3", "5"]
    assert bob.heard == ["1", "3", "4", "5"]
    assert nobody.heard == ["1", "3", "5"]


def test_what_one_user_is_told_is_told_from_the_ring_too() -> None:
    hub = new_hub()
    ann, bob = live(hub, user="ann"), live(hub, user="bob")
    for client in (ann, bob):
        client.stop_reading()
    hub.deliver(batch(event(1), told_to("ann", 2)))
    for client in (ann, bob):
        client.read()

    assert (ann.heard, bob.heard) == (["1", "2"], ["1"])


def test_one_that_says_later_who_it_is_hears_from_then_on_what_it_is_told() -> None:
    hub = new_hub()
    client = live(hub)
    hub.deliver(batch(told_to("ann", 1)))
    hub.belong(client.subscriber, "ann")
    hub.deliver(batch(told_to("ann", 2)))
    hub.unsubscribe(client.subscriber)
    hub.deliver(batch(told_to("ann", 3)))

    assert client.heard == ["2"]


@pytest.mark.parametrize("is_reading", [True, False])
def test_what_a_subscriber_hears_may_change(is_reading: bool) -> None:
    hub = new_hub()
    client = live(hub)
    if not is_reading:
        client.stop_reading()
    hub.change(client.subscriber, in_channels(["agents"]))
    hub.deliver(batch(event(1), event(2, channel="agents")))
    if not is_reading:
        client.read()

    assert client.heard == ["2"]
    hub.change(client.subscriber, in_channels([]))
    hub.deliver(batch(event(3, channel="agents")))
    assert client.heard == ["2"]
    assert hub.statistics().cohorts == 1


def test_a_row_that_leaves_a_filter_is_told_as_leaving() -> None:
    hub = new_hub()
    filtered = interest_in(frozenset({Topic("tasks", where=where_of({"agent": "dev"}))}))
    client, whole = live(hub, filtered), live(hub)
    changes = [
        replace(event(number), operation=Operation.UPDATE, data={"agent": new}, old={"agent": old})
        for number, (old, new) in enumerate([("ops", "dev"), ("dev", "ops"), ("ops", "qa")], 1)
    ]
    hub.deliver(batch(*changes))

    assert client.heard == ["1", "2 leaves"]
    assert whole.heard == ["1", "2", "3"]


def test_that_a_row_has_left_is_told_even_if_a_newer_event_overtakes_it() -> None:
    hub = new_hub()
    filtered = interest_in(frozenset({Topic("agents", where=where_of({"state": "busy"}))}))
    client = live(hub, filtered, wants_latest=True)
    client.stop_reading()
    changes = [
        replace(
            event(number, channel="agents"),
            operation=Operation.UPDATE,
            key=["a"],
            data={"state": new},
            old={"state": old},
        )
        for number, (old, new) in enumerate([("busy", "idle"), ("idle", "off")], 1)
    ]
    hub.deliver(batch(*changes))
    client.read()

    assert client.heard == ["1 leaves"]


def test_some_are_told_regularly_that_the_connection_lives_all_at_the_same_time() -> None:
    clock = Clock()
    hub = new_hub(clock=clock)
    first = live(hub, pulse_seconds=30)
    hub.tick(datetime.now(UTC), 1000)
    clock.now += 20
    second = live(hub, in_channels(["agents"]), pulse_seconds=30)
    hub.deliver(batch(event(1)))
    for seconds in (9, 2, 29, 1):
        clock.now += seconds
        hub.tick(datetime.now(UTC), 1000)

    assert first.heard == ["1", "still at 1", "still at 1"]
    assert second.heard == ["still at 1", "still at 1"]


def test_telling_many_gives_the_garbage_collector_nothing_to_do() -> None:
    hub = new_hub()
    made: list[int] = []

    def send_now(frames: bytes) -> int:
        made.append(gc.get_count()[0])
        return len(frames)

    for _ in range(1000):
        hub.resume(hub.subscribe(PlainFormat(), TASKS, send_now, print, print))
    gc.disable()
    try:
        before = gc.get_count()[0]
        hub.deliver(batch(event(11)))
    finally:
        gc.enable()

    assert len(made) == 1000
    assert max(made) - before < 100
