from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from brain.errors import HistoryLost, NotReady, TooFarBehind
from brain.hub.hub import Hub
from brain.hub.subscriber import Subscriber
from brain.message.cursor import Cursor
from brain.message.event import Batch, Event, Operation
from brain.message.snapshot import Snapshot

TASKS = frozenset({"tasks"})


class PlainFormat:
    """Says an event's id."""

    name = "plain"

    def greet(self, now: datetime, cursor: Cursor) -> str:
        return "hello"

    def render(self, event: Event) -> str | None:
        return str(event.id)

    def answer(self, text: str, now: datetime, cursor: Cursor) -> str:
        return text

    def heartbeat(self, now: datetime, cursor: Cursor) -> str | None:
        return None

    def reset(self, reason: str, now: datetime, cursor: Cursor) -> str | None:
        return None

    def tell_snapshot(self, snapshot: Snapshot, now: datetime) -> Iterator[str]:
        return iter(())


def event(id: int, channel: str = "tasks", size_bytes: int = 100) -> Event:
    return Event(
        Cursor(tick=id // 10 + 1, nonce=5, event_id=id),
        datetime.now(UTC),
        channel,
        Operation.INSERT,
        [id],
        {},
        None,
        size_bytes=size_bytes,
    )


def batch(*events: Event, follows: bool = True) -> Batch:
    return Batch(events, events[-1].cursor, follows)


def new_hub(ring_bytes: int = 10_000) -> Hub:
    """Return a hub that has just begun to follow the log."""
    hub = Hub(ring_bytes)
    hub.deliver(Batch((), Cursor(0, 5)))
    return hub


def ignore() -> None:
    pass


def taken(hub: Hub, subscriber: Subscriber) -> list[str]:
    return hub.take(subscriber, most=1000)


def test_a_subscriber_takes_what_came_after_it_subscribed_in_order() -> None:
    hub = new_hub()
    hub.deliver(batch(event(1)))
    with hub.subscribed(PlainFormat(), TASKS, ignore) as subscriber:
        hub.deliver(batch(event(2), event(3)))
        hub.deliver(batch(event(4)))

        assert taken(hub, subscriber) == ["2", "3", "4"]
        assert taken(hub, subscriber) == []


def test_a_subscriber_hears_its_channels_only() -> None:
    hub = new_hub()
    with hub.subscribed(PlainFormat(), TASKS, ignore) as subscriber:
        hub.deliver(batch(event(1, "agents"), event(2)))

        assert taken(hub, subscriber) == ["2"]


def test_a_handful_leaves_the_rest_for_the_next_time() -> None:
    hub = new_hub()
    with hub.subscribed(PlainFormat(), TASKS, ignore) as subscriber:
        hub.deliver(batch(*map(event, range(5))))

        assert hub.take(subscriber, most=3) == ["0", "1", "2"]
        assert hub.is_behind(subscriber)
        assert hub.take(subscriber, most=3) == ["3", "4"]
        assert not hub.is_behind(subscriber)


def test_every_subscriber_is_woken_by_a_batch() -> None:
    hub = new_hub()
    woken: list[str] = []
    with (
        hub.subscribed(PlainFormat(), TASKS, lambda: woken.append("a")),
        hub.subscribed(PlainFormat(), TASKS, lambda: woken.append("b")),
    ):
        hub.deliver(batch(event(1)))

    assert sorted(woken) == ["a", "b"]


def test_a_subscriber_that_left_is_forgotten() -> None:
    hub = new_hub()
    with hub.subscribed(PlainFormat(), TASKS, ignore):
        assert hub.statistics().subscribers == 1

    assert hub.statistics().subscribers == 0
    hub.deliver(batch(event(1)))


def test_a_subscriber_that_falls_off_the_ring_is_told_instead_of_skipping_a_message() -> None:
    hub = new_hub(ring_bytes=250)
    with hub.subscribed(PlainFormat(), TASKS, ignore) as subscriber:
        hub.deliver(batch(event(1), event(2)))
        assert taken(hub, subscriber) == ["1", "2"]

        hub.deliver(batch(event(3), event(4), event(5)))

        with pytest.raises(TooFarBehind):
            taken(hub, subscriber)


def test_a_subscriber_exactly_at_the_oldest_event_loses_nothing() -> None:
    hub = new_hub(ring_bytes=250)
    with hub.subscribed(PlainFormat(), TASKS, ignore) as subscriber:
        hub.deliver(batch(event(1), event(2), event(3)))
        subscriber.position = hub.statistics().events - 2

        assert taken(hub, subscriber) == ["2", "3"]


def test_the_ring_stays_within_its_bound_but_keeps_the_newest_event() -> None:
    hub = new_hub(ring_bytes=250)

    hub.deliver(batch(*map(event, range(100))))
    assert hub.statistics().ring_bytes == 200

    hub.deliver(batch(event(100, size_bytes=1000)))
    assert hub.statistics().ring_bytes == 1000


def test_a_batch_that_does_not_follow_ends_every_subscriber() -> None:
    hub = new_hub()
    with hub.subscribed(PlainFormat(), TASKS, ignore) as subscriber:
        hub.deliver(Batch((), Cursor(9, 9), follows=False))

        assert hub.is_behind(subscriber)
        with pytest.raises(HistoryLost):
            taken(hub, subscriber)
    with hub.subscribed(PlainFormat(), TASKS, ignore) as newcomer:
        hub.deliver(Batch((event(100),), Cursor(11, 5)))
        assert taken(hub, newcomer) == ["100"]


def test_a_hub_that_has_heard_nothing_yet_takes_nobody() -> None:
    with pytest.raises(NotReady), Hub(10_000).subscribed(PlainFormat(), TASKS, ignore):
        pass


@pytest.mark.parametrize("after", range(30))
def test_a_subscriber_resumes_after_any_event_in_the_ring(after: int) -> None:
    hub = new_hub()
    for first in range(1, 30, 5):
        hub.deliver(batch(*map(event, range(first, first + 5))))
    cursor = event(after).cursor if after else Cursor(0, 5)
    with hub.subscribed(PlainFormat(), TASKS, ignore, cursor) as subscriber:
        assert hub.reached(subscriber) == cursor
        assert hub.resume(subscriber)

        assert taken(hub, subscriber) == [str(id) for id in range(after + 1, 31)]


def test_a_subscriber_resumes_after_a_whole_tick() -> None:
    hub = new_hub()
    hub.deliver(Batch((event(1), event(2)), end := Cursor(1, 5)))
    hub.deliver(batch(event(11)))
    with hub.subscribed(PlainFormat(), TASKS, ignore, end) as subscriber:
        assert hub.resume(subscriber)

        assert taken(hub, subscriber) == ["11"]


@pytest.mark.parametrize(
    "cursor", [Cursor(0, 5), Cursor(1, 6, 9), Cursor(1, 5, 1), Cursor(7, 5), Cursor(99, 5)]
)
def test_a_cursor_that_the_ring_cannot_tell_is_left_to_the_log(cursor: Cursor) -> None:
    hub = new_hub(ring_bytes=250)
    hub.deliver(batch(event(1), event(2), event(3), event(4)))
    with hub.subscribed(PlainFormat(), TASKS, ignore, cursor) as subscriber:
        assert not hub.resume(subscriber)
        assert hub.reached(subscriber) == cursor


def test_a_subscriber_that_is_ahead_of_this_node_is_told_nothing_twice() -> None:
    hub = new_hub()
    with hub.subscribed(PlainFormat(), TASKS, ignore, event(2).cursor) as subscriber:
        hub.wait(subscriber)
        assert hub.reached(subscriber) == event(2).cursor

        hub.deliver(batch(event(1), event(2), event(3)))

        assert taken(hub, subscriber) == ["3"]
        assert hub.reached(subscriber) == hub.cursor


def test_the_cursor_of_a_subscriber_that_has_nothing_to_hear_moves_on() -> None:
    hub = new_hub()
    with hub.subscribed(PlainFormat(), TASKS, ignore) as subscriber:
        hub.deliver(Batch((), Cursor(4, 5)))
        assert hub.reached(subscriber) == Cursor(4, 5)

        hub.deliver(batch(event(51, "agents")))
        assert taken(hub, subscriber) == []
        assert hub.reached(subscriber) == hub.cursor


def test_a_subscriber_may_start_over_after_a_loss() -> None:
    hub = new_hub()
    with hub.subscribed(PlainFormat(), TASKS, ignore) as subscriber:
        hub.deliver(Batch((), Cursor(9, 9), follows=False))
        hub.start_over(subscriber)
        hub.deliver(Batch((event(100),), Cursor(11, 5)))

        assert taken(hub, subscriber) == ["100"]
    with hub.subscribed(PlainFormat(), TASKS, ignore, Cursor(0, 5)) as subscriber:
        assert not hub.resume(subscriber)
