"""
What an event costs the hub with many distinct filters or row rules, against one shared filter.

    python -m bench.filters

Every event is of one customer. With distinct filters, or row rules for the claims of its token,
each client follows a customer of its own, and an event goes to one client. It is compared with
clients that share a filter in three ways: all of them get every event; one gets every event and the
others, by the filter that they share, none; or all get an event in 1,000, which is as many
deliveries and hardly any rendering. The hub alone is measured, in one process and in turns; the
sockets are left out.
"""

from __future__ import annotations

import statistics
import time
from datetime import UTC, datetime

from brain.hub.hub import Hub
from brain.message.base_format import BaseFormat
from brain.message.cursor import Cursor
from brain.message.encodings import encoding_of
from brain.message.event import Batch, Event, Operation
from brain.message.matching import RowAccess, Topic, parse_filter
from brain.message.subscription_set import subscription_set
from brain.transport.websocket_frames import WEBSOCKET_FRAMING

CLIENTS = 1000
EVENTS = 10_000
EVENTS_IN_BATCH = 50
ROUNDS = 5
RING_BYTES = 64 * 1024 * 1024
RULES = "1,000 distinct row rules"


class Outgoing:
    """Counts what is sent."""

    def __init__(self) -> None:
        self.frames = 0

    def send_now(self, frames: bytes) -> int:
        self.frames += 1
        return len(frames)

    def write(self, frames: bytes) -> None:
        self.frames += 1


def topic_of(customer: int, *, by_rule: bool) -> Topic:
    """Return what a client follows: a customer by its filter, or by the claims of its token."""
    if by_rule:
        return Topic("orders", rows=RowAccess(f'{{"":[1],"customer":[{customer}]}}'))
    return Topic("orders", where=parse_filter({"customer": customer}))


def hub_with(customers: list[int], outgoing: Outgoing, *, by_rule: bool) -> Hub:
    """Return a hub with one client for each of `customers`."""
    hub = Hub(RING_BYTES, 60.0)
    hub.deliver(Batch((), Cursor(0, 1), follows=False))
    encoding = encoding_of(BaseFormat(), WEBSOCKET_FRAMING)
    for customer in customers:
        topics = frozenset({topic_of(customer, by_rule=by_rule)})
        subscriber = hub.subscribe(encoding, subscription_set(topics), outgoing, print)
        hub.resume(subscriber)
    return hub


def batches(customers: list[int], *, by_rule: bool) -> list[Batch]:
    """Return events of these customers, in turns."""
    made = []
    for tick in range(1, EVENTS // EVENTS_IN_BATCH + 1):
        events = []
        for number in range(1, EVENTS_IN_BATCH + 1):
            serial = tick * EVENTS_IN_BATCH + number
            customer = customers[serial % len(customers)]
            data = f'{{"id" : {serial}, "customer" : {customer}, "total" : 9.90}}'
            cursor = Cursor(tick, 1, number)
            now = datetime.now(UTC)
            event = Event(*cursor, now, "orders", Operation.INSERT, f"[{serial}]", data, None, 3000)
            if by_rule:
                event.rule_values = f'{{"" : 1, "customer" : {customer}}}'
            events.append(event)
        made.append(Batch(tuple(events), Cursor(tick, 1)))
    return made


def seconds_per_event(hub: Hub, work: list[Batch]) -> float:
    begun = time.process_time()
    for batch in work:
        hub.deliver(batch)
    return (time.process_time() - begun) / EVENTS


def main() -> None:
    all_customers = list(range(CLIENTS))
    # The customers that the clients follow, and those of the events.
    kinds = {
        "1,000 distinct filters": (all_customers, all_customers),
        RULES: (all_customers, all_customers),
        "a shared filter, all get every event": ([0] * CLIENTS, [0]),
        "a shared filter, one client gets every event": ([0] + [1] * (CLIENTS - 1), [0]),
        "a shared filter, all get an event in 1,000": ([0] * CLIENTS, all_customers),
    }
    spent: dict[str, list[float]] = {name: [] for name in kinds}
    sent: dict[str, int] = {}
    for _ in range(ROUNDS):
        for name, (followed, customers) in kinds.items():
            outgoing = Outgoing()
            hub = hub_with(followed, outgoing, by_rule=name == RULES)
            work = batches(customers, by_rule=name == RULES)
            outgoing.frames = 0
            spent[name].append(seconds_per_event(hub, work))
            sent[name] = outgoing.frames
    medians = {name: statistics.median(times) for name, times in spent.items()}
    distinct = next(iter(medians.values()))
    print(f"{'':44} {'µs per event':>12} {'deliveries':>10} {'distinct / this':>15}")
    for name, median in medians.items():
        print(f"{name:44} {median * 1e6:12.1f} {sent[name]:10} {distinct / median:15.2f}")


if __name__ == "__main__":
    main()
