from __future__ import annotations

from datetime import UTC, datetime

import pytest

from brain.errors import HistoryLost, TooFarBehind
from brain.hub.hub import Hub
from brain.hub.subscriber import Subscriber
from brain.message.cursor import Cursor
from brain.message.event import Batch, Event, Operation

TASKS = frozenset({"tasks"})


class PlainFormat:
    """Says an event's id."""

    name = "plain"

    def greet(self, now: datetime) -> str:
        return "hello"

    def render(self, event: Event) -> str | None:
        return str(event.id)

    def answer(self, text: str, now: datetime) -> str:
        return text


def event(id: int, channel: str = "tasks", size_bytes: int = 100) -> Event:
    return Event(
        id, datetime.now(UTC), channel, Operation.INSERT, [id], {}, None, size_bytes=size_bytes
    )


def batch(*events: Event, follows: bool = True) -> Batch:
    return Batch(events, Cursor(1, 1), follows)


def ignore() -> None:
    pass


def taken(hub: Hub, subscriber: Subscriber) -> list[str]:
    return hub.take(subscriber, most=1000)


def test_a_subscriber_takes_what_came_after_it_subscribed_in_order() -> None:
    hub = Hub(ring_bytes=10_000)
    hub.deliver(batch(event(1)))
    with hub.subscribed(PlainFormat(), TASKS, ignore) as subscriber:
        hub.deliver(batch(event(2), event(3)))
        hub.deliver(batch(event(4)))

        assert taken(hub, subscriber) == ["2", "3", "4"]
        assert taken(hub, subscriber) == []


def test_a_subscriber_hears_its_channels_only() -> None:
    hub = Hub(ring_bytes=10_000)
    with hub.subscribed(PlainFormat(), TASKS, ignore) as subscriber:
        hub.deliver(batch(event(1, "agents"), event(2)))

        assert taken(hub, subscriber) == ["2"]


def test_a_handful_leaves_the_rest_for_the_next_time() -> None:
    hub = Hub(ring_bytes=10_000)
    with hub.subscribed(PlainFormat(), TASKS, ignore) as subscriber:
        hub.deliver(batch(*map(event, range(5))))

        assert hub.take(subscriber, most=3) == ["0", "1", "2"]
        assert hub.is_behind(subscriber)
        assert hub.take(subscriber, most=3) == ["3", "4"]
        assert not hub.is_behind(subscriber)


def test_every_subscriber_is_woken_by_a_batch() -> None:
    hub = Hub(ring_bytes=10_000)
    woken: list[str] = []
    with (
        hub.subscribed(PlainFormat(), TASKS, lambda: woken.append("a")),
        hub.subscribed(PlainFormat(), TASKS, lambda: woken.append("b")),
    ):
        hub.deliver(batch(event(1)))

    assert sorted(woken) == ["a", "b"]


def test_a_subscriber_that_left_is_forgotten() -> None:
    hub = Hub(ring_bytes=10_000)
    with hub.subscribed(PlainFormat(), TASKS, ignore):
        assert hub.statistics().subscribers == 1

    assert hub.statistics().subscribers == 0
    hub.deliver(batch(event(1)))


def test_a_subscriber_that_falls_off_the_ring_is_told_instead_of_skipping_a_message() -> None:
    hub = Hub(ring_bytes=250)
    with hub.subscribed(PlainFormat(), TASKS, ignore) as subscriber:
        hub.deliver(batch(event(1), event(2)))
        assert taken(hub, subscriber) == ["1", "2"]

        hub.deliver(batch(event(3), event(4), event(5)))

        with pytest.raises(TooFarBehind):
            taken(hub, subscriber)


def test_a_subscriber_exactly_at_the_oldest_event_loses_nothing() -> None:
    hub = Hub(ring_bytes=250)
    with hub.subscribed(PlainFormat(), TASKS, ignore) as subscriber:
        hub.deliver(batch(event(1), event(2), event(3)))
        subscriber.position = hub.statistics().events - 2

        assert taken(hub, subscriber) == ["2", "3"]


def test_the_ring_stays_within_its_bound_but_keeps_the_newest_event() -> None:
    hub = Hub(ring_bytes=250)

    hub.deliver(batch(*map(event, range(100))))
    assert hub.statistics().ring_bytes == 200

    hub.deliver(batch(event(100, size_bytes=1000)))
    assert hub.statistics().ring_bytes == 1000


def test_a_batch_that_does_not_follow_ends_every_subscriber() -> None:
    hub = Hub(ring_bytes=10_000)
    with hub.subscribed(PlainFormat(), TASKS, ignore) as subscriber:
        hub.deliver(batch(event(1), follows=False))

        assert hub.is_behind(subscriber)
        with pytest.raises(HistoryLost):
            taken(hub, subscriber)
    with hub.subscribed(PlainFormat(), TASKS, ignore) as newcomer:
        hub.deliver(batch(event(2)))
        assert taken(hub, newcomer) == ["2"]
