from __future__ import annotations

from brain.hub.event_caches import EventCaches
from brain.message.event import Event
from brain.message.matching import Topic, parse_filter
from brain.message.subscription_set import subscription_set
from tests.message.rows import inserted


def looked_into(number: int) -> Event:
    """Return an event that counts 300 bytes, and that a filter has looked into."""
    event = inserted("orders", {"id": number})
    subscription_set(frozenset({Topic("orders", where=parse_filter({"id": 1}))})).match(event)
    assert event.has_caches
    return event


def test_the_events_that_were_looked_into_last_keep_what_was_cached() -> None:
    caches = EventCaches(3 * 300)
    first, second, third, fourth = events = [looked_into(number) for number in range(4)]
    for event in (first, second, third, first, fourth):
        caches.looked_into(event)

    assert [event.has_caches for event in events] == [True, False, True, True]
    assert second.row is not None and second.row.text("id") == "1"


def test_an_event_that_nobody_looked_into_takes_no_room() -> None:
    caches = EventCaches(300)
    event = looked_into(1)
    caches.looked_into(event)
    for number in range(10):
        caches.looked_into(inserted("news", {"id": number}))

    assert event.has_caches
