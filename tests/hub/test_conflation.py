from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random

import pytest

from brain.hub.conflation import Conflation
from brain.hub.event_caches import EventCaches
from brain.hub.ring import Ring
from brain.message.cursor import Cursor
from brain.message.event import Batch, Event, Operation
from tests.message.rows import as_json

EVENT_BYTES = 100


def event(id: int, key: str) -> Event:
    return Event(
        *Cursor(1, 1, id),
        datetime.now(UTC),
        "orders",
        Operation.UPDATE,
        as_json([key]),
        "{}",
        "{}",
        size_bytes=EVENT_BYTES,
    )


@dataclass
class Keys:
    """Returns the key of an event's row, None for the row `-`, and records the calls."""

    calls: list[int] = field(default_factory=list)

    def __call__(self, event: Event) -> str | None:
        self.calls.append(event.id)
        return None if event.key_text == "-" else event.key_text


class Log:
    """A small ring of events and its conflation."""

    def __init__(self, most_events: int = 100) -> None:
        self.ring = Ring(most_events * EVENT_BYTES, capacity_seconds=60)
        self.ring.append(Batch((), Cursor(0, 1)), now=0)
        self.keys = Keys()
        self.conflation = Conflation(self.ring, self.keys, EventCaches(10_000))

    def append(self, rows: str) -> None:
        """Append an update of each row; the keys of rows are letters."""
        for row in rows:
            one = event(self.ring.head, row)
            self.ring.append(Batch((one,), one.cursor), now=0)

    def superseded(self) -> str:
        """Return the row of each event in the ring, in capitals if it is superseded."""
        rows = ""
        events = self.ring.since(self.ring.first, self.ring.head - self.ring.first)
        for number, one in enumerate(events, start=self.ring.first):
            assert one.key_text is not None
            row = one.key_text
            rows += row.upper() if self.conflation.is_superseded(one, number) else row
        return rows


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ("a", "a"),
        ("aa", "Aa"),
        ("ab", "ab"),
        ("abaab", "ABAab"),
        ("a-a-", "A-a-"),
        ("--", "--"),
    ],
)
def test_all_events_with_a_key_but_the_newest_are_superseded(rows: str, expected: str) -> None:
    log = Log()
    log.append(rows)

    assert log.superseded() == expected


def test_an_event_that_is_superseded_later_is_superseded_from_then_on() -> None:
    log = Log()
    log.append("ab")
    assert log.superseded() == "ab"

    log.append("a")

    assert log.superseded() == "Aba"


def test_nothing_is_indexed_before_a_client_asks_and_then_each_event_once() -> None:
    log = Log()
    log.append("abcab")
    assert log.keys.calls == []

    def reads_for(number: int) -> list[int]:
        """Return the ids of the events from which a key is read to check one event."""
        log.keys.calls.clear()
        log.conflation.is_superseded(log.ring.since(number, 1)[0], number)
        return log.keys.calls.copy()

    assert reads_for(2) == [2, 0, 1, 2, 3, 4]
    assert reads_for(3) == [3]
    log.append("c")
    assert reads_for(4) == [4, 5]


def test_an_event_without_a_key_is_answered_without_an_index() -> None:
    log = Log()
    log.append("a-")

    assert not log.conflation.is_superseded(log.ring.since(1, 1)[0], 1)
    assert log.keys.calls == [1]


def test_keys_of_events_that_have_left_the_ring_are_pruned(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("brain.hub.conflation.STALE_KEYS", 5)
    log = Log(most_events=3)
    rows = "abcdefghijklmnopqrstuvwxyz"
    most = 0
    for row in rows:
        log.append(row)
        log.superseded()
        most = max(most, len(log.conflation._newest))

    assert most == 3 + 5
    log.append("y")
    assert log.superseded() == "Yzy"


def test_what_is_superseded_is_what_a_scan_of_the_ring_finds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("brain.hub.conflation.STALE_KEYS", 2)
    random = Random(5221)
    log = Log(most_events=20)
    rows = ""
    for _ in range(500):
        more = "".join(random.choices("abcdefgh-", k=random.randint(1, 30)))
        log.append(more)
        rows = (rows + more)[-20:]
        if random.random() < 0.5:
            scanned = [
                row.upper() if row in rows[number + 1 :] else row for number, row in enumerate(rows)
            ]
            assert log.superseded() == "".join(scanned)
