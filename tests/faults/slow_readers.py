"""Scenarios of slow consumers: clients that read slowly, or not any more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from math import inf
from typing import NamedTuple

from tests.faults.crowd import Crowd, Received, allow_files, crowd
from tests.faults.figures import Delays, Figure, Findings, percentile_of_all, usual_percentile
from tests.faults.load import CHANNEL, Load, loaded
from tests.faults.observed import ObservedNode, served, watched_memory
from tests.faults.scene import Stage
from tests.faults.witness import witnessed
from tests.raw_websocket import SMALL_BUFFER_BYTES, RawClient, upgraded

FOLLOWING = f"/ws?channel={CHANNEL}"
FOLLOWING_WITH_CURSOR = f"{FOLLOWING}&cursor="
MARGIN_SECONDS = 5.0
"""How much later than its settings Brain may drop a client."""
PATIENCE_SECONDS = 5.0
"""How much longer a scenario waits, to measure how late Brain is."""

SHARE = 0.99
MOST_TIMES_AS_LATE, MOST_TIMES_IN_ALL = 1.5, 3.0
"""The aim is 1.1, but a busy machine moves the delays by more than that."""
AT_EASE_MILLISECONDS = 400.0
"""A server whose messages take longer, at a steady rate, falls behind."""
MOST_HALVINGS = 5

SIP_BYTES = 2000
FILLING_SECONDS = 3.0
"""How long it may take until the buffers between Brain and a client are full."""
GOOD_SECONDS = 5.0
"""How long a well-behaved client may wait for a message."""


async def stopped_readers(
    stage: Stage,
    *,
    stopped: int,
    others: int,
    rate: float,
    payload_bytes: int,
    unread_timeout_seconds: float,
    calm_seconds: float,
    trial_seconds: float,
    slack_milliseconds: float,
) -> Findings:
    """
    Let some of many clients stop reading under a steady load; they are cut, and come back.

    The load is at the given rate or, after a trial, at the rate that this machine sustains.
    """
    allow_files(stopped + others)
    limit = unread_timeout_seconds + MARGIN_SECONDS
    async with (
        served(stage, {"BRAIN_UNREAD_TIMEOUT_SECONDS": str(unread_timeout_seconds)}) as node,
        loaded(node.database, payload_bytes) as load,
        crowd(node.port, others, FOLLOWING) as bystanders,
        crowd(node.port, stopped, FOLLOWING_WITH_CURSOR, SMALL_BUFFER_BYTES) as sleepers,
    ):
        if trial_seconds:
            rate = await carried_rate(load, bystanders, sleepers, rate, trial_seconds)
        async with watched_memory(node) as memory, load.flowing(rate):
            departures, marks = await stop_and_return(
                node, load, bystanders, sleepers, calm_seconds, limit + PATIENCE_SECONDS
            )
        figures = (
            Figure("messages a second", rate),
            Figure("to", stopped + others),
            Figure("the first cut after", departures[0], "s", limit),
            Figure("the last after", departures[-1], "s", limit),
            *delayed([await bystanders.delays(*span) for span in marks], slack_milliseconds),
            *of_crowd("those who stopped", await sleepers.receive_all(load), load),
            *of_crowd("the others", await bystanders.receive_all(load), load),
            memory.growth(),
        )
    return Findings(figures)


class Spans(NamedTuple):
    """The first and last message number before, while and after clients do not read."""

    before: tuple[int, int]
    between: tuple[int, int]
    after: tuple[int, int]


async def stop_and_return(
    node: ObservedNode,
    load: Load,
    bystanders: Crowd,
    sleepers: Crowd,
    calm_seconds: float,
    patience_seconds: float,
) -> tuple[Sequence[float], Spans]:
    """Let the sleepers stop reading and come back; return when each was cut, and the spans."""
    calm = load.last
    await asyncio.sleep(calm_seconds)
    stopped = load.last
    await sleepers.stop()
    departures = await node.departures(sleepers.clients, bystanders.clients, patience_seconds)
    gone = load.last
    await sleepers.come_back()
    await sleepers.receive_all(load)
    back = load.last
    await asyncio.sleep(calm_seconds)
    return departures, Spans((calm, stopped), (stopped, gone), (back, load.last))


async def carried_rate(
    load: Load, bystanders: Crowd, sleepers: Crowd, wanted: float, trial_seconds: float
) -> float:
    """
    Return the wanted rate if no client falls behind, else half of the rate at which none does.

    At the limit, delays depend more on the machine than on clients that do not read.
    """
    rate = wanted
    for _ in range(MOST_HALVINGS):
        first = load.last
        async with load.flowing(rate):
            await asyncio.sleep(trial_seconds)
        # No client may lag when the next trial begins.
        await bystanders.receive_all(load)
        await sleepers.receive_all(load)
        delays = await bystanders.delays(first, load.last)
        if percentile_of_all(delays, SHARE) < AT_EASE_MILLISECONDS:
            return rate if rate == wanted else rate / 2
        rate /= 2
    return rate


def delayed(spans: Sequence[Sequence[Delays]], slack_milliseconds: float) -> Iterator[Figure]:
    """
    Compare the delays of the others, while some do not read, with those before and after.

    The bound follows from the longer of both: the load of the machine may change. No harm may last;
    only the worst moments afterwards are not judged, when the same processors send hundreds of
    megabytes to the clients that have come back.
    """
    for what, judged, times, times_after, slack in (
        (
            *("their usual p99", usual_percentile),
            *(MOST_TIMES_AS_LATE, MOST_TIMES_IN_ALL, slack_milliseconds),
        ),
        # One bad moment of the machine moves this.
        ("p99 of all", percentile_of_all, MOST_TIMES_IN_ALL, inf, 10 * slack_milliseconds),
    ):
        before, between, after = (judged(span, SHARE) for span in spans)
        yield Figure(f"{what} before", before, "ms")
        yield Figure("between", between, "ms", times * max(before, after) + slack)
        yield Figure("after", after, "ms", times_after * before + slack)


def of_crowd(who: str, received: Received, load: Load) -> Sequence[Figure]:
    return (
        Figure(f"{who}: gone", received.gone, most=0),
        Figure("lost", received.lost + load.last - received.last, most=0),
        Figure("doubled", received.doubled, most=0),
        Figure("reset", received.resets, most=0),
    )


async def slow_drinkers(
    stage: Stage, *, ring_seconds: float, rate: float, payload_bytes: int
) -> Findings:
    """Let one client read a byte a second, and another more, but less than it is sent."""
    # So that they are cut for the age of their unsent messages, before any other reason.
    settings = {
        "BRAIN_RING_SECONDS": str(ring_seconds),
        "BRAIN_RING_BYTES": str(1 << 30),
        "BRAIN_UNREAD_TIMEOUT_SECONDS": str(10 * ring_seconds + 60),
        "BRAIN_PING_SECONDS": str(10 * ring_seconds + 60),
    }
    limit = ring_seconds + FILLING_SECONDS + MARGIN_SECONDS
    async with (
        served(stage, settings) as node,
        loaded(node.database, payload_bytes) as load,
        witnessed(node.port) as witness,
        drinking(node.port, 1),
        drinking(node.port, SIP_BYTES),
        watched_memory(node) as memory,
        load.flowing(rate),
    ):
        first, second = await node.departures(2, 1, limit + PATIENCE_SECONDS)
    return Findings(
        (
            Figure("one of two cut after", first, "s", limit),
            Figure("the other after", second, "s", limit),
            *witness.figures(GOOD_SECONDS),
            memory.growth(),
        )
    )


@asynccontextmanager
async def drinking(port: int, bytes_per_second: int) -> AsyncIterator[None]:
    """Run a client that reads this much a second, until the context ends."""
    async with upgraded(port, FOLLOWING, SMALL_BUFFER_BYTES) as client:
        task = asyncio.create_task(drink(client, bytes_per_second))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait((task,))


async def drink(client: RawClient, bytes_per_second: int) -> None:
    """Read this much a second until the connection ends."""
    try:
        while await client.receive(bytes_per_second):
            await asyncio.sleep(1)
    except OSError:
        pass  # it has been cut
