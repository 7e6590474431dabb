from __future__ import annotations

from brain.hub.event_caches import EventCaches
from brain.message.event import Event
from brain.message.matching import Topic, parse_filter
from brain.message.subscription_set import subscription_set
from tests.message.rows import inserted


def looked_into(number: int) -> Event:
    """Return an event that a filter has looked into."""
    event = inserted("orders", {"id": number})
    subscription_set(frozenset({Topic("orders", where=parse_filter({"id": 1}))})).match(event)
    assert event.cached_bytes
    return event


SIZE = looked_into(1).cached_bytes


def test_the_events_that_were_looked_into_last_keep_what_was_cached() -> None:
    caches = EventCaches(3 * SIZE)
    first, second, third, fourth = events = [looked_into(number) for number in range(4)]
    for event in (first, second, third, first, fourth):
        caches.looked_into(event)

    assert [event.cached_bytes > 0 for event in events] == [True, False, True, True]
    assert second.row is not None and second.row.text("id") == "1"


def test_frames_take_room_as_columns_do() -> None:
    caches = EventCaches(3 * SIZE)
    rendered = looked_into(1)
    rendered.frames["a format"] = bytes(SIZE)
    caches.looked_into(rendered)
    others = [looked_into(number) for number in range(2)]
    for event in others:
        caches.looked_into(event)

    assert rendered.cached_bytes == 0
    assert rendered.frames == {}
    assert all(event.cached_bytes for event in others)


def test_frames_that_are_added_later_count_when_the_event_is_looked_into_again() -> None:
    caches = EventCaches(3 * SIZE)
    first, second = looked_into(1), looked_into(2)
    caches.looked_into(first)
    caches.looked_into(second)
    second.frames["a format"] = bytes(SIZE)
    caches.looked_into(second)

    assert (first.cached_bytes, second.cached_bytes > SIZE) == (0, True)


def test_an_event_that_nobody_looked_into_takes_no_room() -> None:
    caches = EventCaches(SIZE)
    event = looked_into(1)
    caches.looked_into(event)
    for number in range(10):
        caches.looked_into(inserted("news", {"id": number}))

    assert event.cached_bytes
