"""
What metrics cost a delivery: the hub with its counts and its sink, against the same without them.

    python -m bench.metrics_cost [--rounds 301]

Events are delivered to clients over TCP sockets of this machine, which another process reads: to
1,000 clients that all get each event, and to 1,000 of which each event is for one. Each round
delivers the same with metrics and without, in turns and in either order; the difference is the
median of those of the rounds, by processor time. The hub and the sockets alone are measured: what
Brain does for an event before that makes the share smaller. Then what each process does once a
second, and a scrape: for one process, and through the files of workers.
"""

from __future__ import annotations

import argparse
import os
import selectors
import signal
import socket
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial

from brain.app import build_app
from brain.hub.cohort import Cohort
from brain.hub.hub import Hub
from brain.message.base_format import BaseFormat
from brain.message.cursor import Cursor
from brain.message.encodings import encoding_of
from brain.message.event import Batch, Event, Operation
from brain.message.matching import Match, Topic
from brain.message.subscription_set import subscription_set
from brain.metrics.delivery import DeliveryMetrics
from brain.metrics.files import metrics_files
from brain.metrics.metrics import Metrics, Sampled
from brain.settings import Settings
from brain.transport.refusal_counts import RefusalCounts
from brain.transport.websocket_frames import WEBSOCKET_FRAMING

CLIENTS = 1000
EVENTS_IN_BATCH = 5
RING_BYTES = 8 * 1024 * 1024


class UncountedCohort(Cohort):
    """A cohort as it would be without counts."""

    def deliver(self, matched: Iterable[tuple[Event, Match]], now: float) -> None:
        encode = self.encoding.encode
        self.write(b"".join([encode(event, match) or b"" for event, match in matched]), now)

    def write(self, frames: bytes, now: float, messages: int = 0) -> None:
        if not frames:
            return
        self.sent_at = now
        size = len(frames)
        for subscriber, send_now in zip([*self.members], [*self.members.values()], strict=True):
            try:
                sent = send_now(frames)
            except OSError:
                sent = 0
            if sent < size:
                subscriber.write(frames[sent:])


class Outgoing:
    """A client's socket."""

    def __init__(self, opened: socket.socket) -> None:
        self.send_now = opened.send

    def write(self, frames: bytes) -> None:
        raise RuntimeError("the clients do not read as fast as they are sent")


@contextmanager
def read_sockets(count: int) -> Iterator[list[socket.socket]]:
    """Open connections that another process reads until the context ends."""
    with socket.create_server(("127.0.0.1", 0), backlog=count) as listener:
        reader = os.fork()
        if reader == 0:
            read_for_ever(listener)
        opened = [socket.create_connection(listener.getsockname()) for _ in range(count)]
        for one in opened:  # as asyncio has it
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        yield opened
    finally:
        os.kill(reader, signal.SIGKILL)
        os.waitpid(reader, 0)
        for one in opened:
            one.close()


def read_for_ever(listener: socket.socket) -> None:
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj is listener:
                selector.register(listener.accept()[0], selectors.EVENT_READ)
            else:
                os.read(key.fd, 1 << 20)


def hub_with(sockets: list[socket.socket], channels: list[str]) -> Hub:
    """Return a hub with a client on each socket: each of one of the channels."""
    hub = Hub(RING_BYTES, 1.0)
    hub.deliver(Batch((), Cursor(0, 5)))
    encoding = encoding_of(BaseFormat(), WEBSOCKET_FRAMING)
    for number, opened in enumerate(sockets):
        subscriptions = subscription_set(frozenset({Topic(channels[number % len(channels)])}))
        hub.resume(hub.subscribe(encoding, subscriptions, Outgoing(opened), print))
    return hub


def batches(channels: list[str], first: int, count: int) -> list[Batch]:
    """Return batches of updates, each of the next channel."""
    found = []
    for number in range(first, first + count):
        now = datetime.now(UTC)
        events = tuple(
            Event(
                *Cursor(number, 5, number * EVENTS_IN_BATCH + place),
                now,
                channels[(number * EVENTS_IN_BATCH + place) % len(channels)],
                Operation.UPDATE,
                f"[{place}]",
                '{"id": 1, "status": "running", "title": "as long as usual", "progress": 7}',
                '{"id": 1, "status": "running", "title": "as long as usual", "progress": 6}',
                size_bytes=700,
            )
            for place in range(EVENTS_IN_BATCH)
        )
        found.append(Batch(events, events[-1].cursor, tick_at=now))
    return found


def nanoseconds(hub: Hub, sink: DeliveryMetrics | None, delivered: list[Batch]) -> float:
    """Return the processor time of delivering batches, with metrics or without."""
    # The same objects for both: where they lie in memory makes a difference of some percent.
    for cohort in hub._cohorts:
        cohort.__class__ = UncountedCohort if sink is None else Cohort
    began = time.process_time_ns()
    for batch in delivered:
        hub.deliver(batch)
        if sink is not None:
            sink.deliver(batch)
    if sink is not None:
        sink._look_into_batches()
    return float(time.process_time_ns() - began)


def compare(name: str, channels: list[str], rounds: int) -> None:
    """Print what a delivery takes with metrics and without."""
    receivers = CLIENTS // len(channels)
    in_turn = 2 if receivers > 1 else 100  # some 15 ms each
    deliveries = in_turn * receivers * EVENTS_IN_BATCH
    sink = Metrics(Settings()).delivery
    found: list[tuple[float, float]] = []
    with read_sockets(CLIENTS) as sockets:
        hub = hub_with(sockets, channels)
        for number in range(rounds + 1):
            turns = (sink, None) if number % 2 else (None, sink)
            times = {
                of: nanoseconds(hub, of, batches(channels, 2 * number * in_turn + place, in_turn))
                for place, of in zip((1, in_turn + 1), turns, strict=True)
            }
            found.append((times[None] / deliveries, times[sink] / deliveries))
    del found[0]  # it warms up
    bare = statistics.median(each[0] for each in found)
    more = statistics.median(each[1] - each[0] for each in found)
    print(f"| {name} | {bare:.0f} ns | {more:+.0f} ns | {100 * more / bare:+.2f} % |")


def milliseconds(work: Callable[[], object], times: int = 200) -> float:
    work()
    began = time.process_time_ns()
    for _ in range(times):
        work()
    return (time.process_time_ns() - began) / times / 1e6


def call_all(samples: Iterable[Callable[[], object]]) -> None:
    for sample in samples:
        sample()


def periodic() -> None:
    """Print what a process does once a second, and what a scrape takes."""
    settings = Settings(metrics_port=0)
    services = build_app("postgresql://127.0.0.1:1/none", settings).state.services
    rooms = Sampled(
        hub=Hub(RING_BYTES, 1.0),
        source=services.source,
        sessions=services.sessions.registry,
        refusals=RefusalCounts(),
        authority=services.authority,
        tickets=services.tickets,
        presence=services.presence,
        cluster=services.cluster,
        problems=services.problems,
    )
    with metrics_files() as files:
        for name, of in (("one process", None), ("each of two workers", files)):
            every = [Metrics(settings, of, number) for number in ((1,) if of is None else (1, 2))]
            samples = [sample for metrics in every for sample in metrics._samples(rooms)]
            for sample in samples:
                sample()
            sampling = milliseconds(partial(call_all, every[-1]._samples(rooms)))
            scrape = milliseconds(every[-1].exposition.page)
            print(f"| {name} | {sampling:.2f} ms | {scrape:.1f} ms |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=301)
    rounds = parser.parse_args().rounds
    print("| a delivery, by processor time | without | metrics | |\n|---|---|---|---|")
    compare(f"{CLIENTS:,} clients get each event", ["tasks"], rounds)
    compare("one client gets each event", [f"tasks-{n}" for n in range(CLIENTS)], rounds)
    print("\n| | sampling, once a second | a scrape |\n|---|---|---|")
    periodic()


if __name__ == "__main__":
    main()
