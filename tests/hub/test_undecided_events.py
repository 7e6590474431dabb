"""An event that does not say whether a row matches is a reset of the subscription, and no more."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from brain.hub.hub import Hub
from brain.message.condition_binding import Meaning, bound, comparisons
from brain.message.condition_parsing import parse_condition
from brain.message.cursor import Cursor
from brain.message.encodings import encoding_of
from brain.message.event import Batch, Event, Operation
from brain.message.matching import Topic
from brain.message.subscription_set import subscription_set
from brain.message.topic_handle import topic_handle
from brain.message.v1_format import V1
from brain.transport.websocket_frames import WEBSOCKET_FRAMING, texts_of
from tests.message.rows import AT


def ranged(value: int) -> Topic:
    condition = parse_condition({"total": {"gt": value}})
    meanings = {one: Meaning("number", [str(value)]) for one in comparisons(condition)}
    return Topic("orders", condition=bound(condition, meanings))


RANGED, OTHER, WHOLE = ranged(10), ranged(20), Topic("orders")


class Client:
    """A subscriber with all three topics, which counts its reloads."""

    def __init__(self, hub: Hub, topics: Sequence[Topic]) -> None:
        self.hub = hub
        self.frames: list[dict[str, Any]] = []
        self.reloads: list[list[int]] = []
        self.subscriber = hub.subscribe(
            encoding_of(V1, WEBSOCKET_FRAMING),
            subscription_set(frozenset(topics)),
            self,
            lambda reason: pytest.fail(str(reason)),
            reload=lambda events: self.reloads.append([event.id for event in events]),
        )
        assert hub.resume(self.subscriber)

    def send_now(self, frames: bytes) -> int:
        self.write(frames)
        return len(frames)

    def write(self, frames: bytes) -> None:
        self.frames += map(json.loads, texts_of(frames))

    def ops(self, topic: Topic) -> list[str]:
        number = topic_handle(topic).number
        return [frame["op"] for frame in self.frames if frame["sub"] == number]


def update(id: int, total: int | None, old: int = 15) -> Event:
    """Return an update of a row, of which the new value is not in the event if it is None."""
    data = '{"id" : 1}' if total is None else f'{{"id" : 1, "total" : {total}}}'
    event = Event(
        *Cursor(1, 1, id),
        AT,
        "orders",
        Operation.UPDATE,
        "[1]",
        data,
        f'{{"id" : 1, "total" : {old}}}',
        300,
        omitted=("total",) if total is None else (),
        transaction_id=id,
    )
    event.ends = id
    return event


EVENTS = (update(1, 16), update(2, None), update(3, 17), update(4, 25))
EXPECTED = {
    RANGED: ["update", "reset", "update", "update"],
    OTHER: ["reset", "insert"],
    WHOLE: ["update", "update", "update", "update"],
}


@pytest.mark.parametrize("is_paused", [False, True])
def test_only_the_subscriptions_whose_filter_needs_the_value_get_a_reset(is_paused: bool) -> None:
    turns: list[Callable[[], None]] = []
    hub = Hub(1_000_000, 60, later=turns.append)
    hub.deliver(Batch((), Cursor(0, 1)))
    client, whole = Client(hub, [RANGED, OTHER, WHOLE]), Client(hub, [WHOLE])
    if is_paused:
        hub.pause_writing(client.subscriber)
    hub.deliver(Batch(EVENTS, Cursor(1, 1)))
    if is_paused:
        assert client.frames == []
        hub.resume_writing(client.subscriber)
        while turns:
            turns.pop()()

    assert {topic: client.ops(topic) for topic in EXPECTED} == EXPECTED
    assert client.reloads == [[2]]
    assert whole.ops(WHOLE) == EXPECTED[WHOLE]
    assert whole.reloads == []
    reset = next(frame for frame in client.frames if frame["op"] == "reset")
    assert "cursor" not in reset  # a client that is cut here gets it again
    assert "the values of total" in reset["reason"]


def test_the_hub_counts_what_filters_take() -> None:
    hub = Hub(1_000_000, 60)
    hub.deliver(Batch((), Cursor(0, 1)))
    clients = [Client(hub, topics) for topics in ([RANGED], [RANGED, OTHER], [OTHER], [WHOLE])]
    hub.deliver(Batch(EVENTS[:1], Cursor(1, 1)))

    # Each filter is evaluated once on the row, and once on what it was: not for each client.
    assert hub.statistics().filters == (2, 2, 2, 3)
    for client in clients:
        hub.unsubscribe(client.subscriber)
    assert hub.statistics().filters == (0, 0, 0, 0)


@pytest.mark.parametrize("is_undecided", [True, False])
def test_a_client_that_begins_anew_gets_nothing_between_the_reset_and_the_rows(
    is_undecided: bool,
) -> None:
    hub = Hub(1_000_000, 60)
    hub.deliver(Batch((), Cursor(0, 1)))
    client, whole = Client(hub, [RANGED]), Client(hub, [WHOLE])
    client.subscriber.reload = lambda events: hub.restart(client.subscriber)
    events = list(EVENTS)
    if not is_undecided:
        events[1] = events[1].with_values(operation=Operation.RESET, data='"a reason"')
    hub.deliver(Batch(tuple(events), Cursor(1, 1)))

    assert [frame["op"] for frame in client.frames] == ["update", "reset"]
    assert client.subscriber.cursor == events[1].cursor
    assert len(whole.ops(WHOLE)) == 4


def test_a_row_of_which_it_is_not_known_whether_it_matched_is_inserted() -> None:
    hub = Hub(1_000_000, 60)
    hub.deliver(Batch((), Cursor(0, 1)))
    client = Client(hub, [RANGED])
    was_large = update(1, 16)
    was_large.old = '{"id" : 1}'
    hub.deliver(Batch((was_large,), Cursor(1, 1)))

    assert client.ops(RANGED) == ["insert"]
