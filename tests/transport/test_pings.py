"""One timer pings all connections of a server."""

from __future__ import annotations

import asyncio

from brain.transport.pings import SLOTS, Pings


class Noted:
    """Counts the pings that it is sent."""

    def __init__(self) -> None:
        self.payloads: list[bytes] = []

    def ping(self, payload: bytes) -> None:
        self.payloads.append(payload)


async def pinged(connection: Noted, count: int) -> None:
    async with asyncio.timeout(10):
        while len(connection.payloads) < count:
            await asyncio.sleep(0.001)


def timers() -> int:
    """Return how many timers of `Pings` are running on this event loop."""
    scheduled = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]
    return sum("Pings" in repr(timer) for timer in scheduled if not timer.cancelled())


async def test_each_connection_is_pinged_once_in_each_interval() -> None:
    pings = Pings(interval_seconds=0.05)
    first, late = Noted(), Noted()
    first_slot = pings.add(first)
    await pinged(first, 1)
    late_slot, before = pings.add(late), len(first.payloads)
    await pinged(late, 3)
    pings.remove(first, first_slot)
    pings.remove(late, late_slot)

    assert abs(len(first.payloads) - before - len(late.payloads)) <= 1
    assert len(set(first.payloads)) == len(first.payloads)


async def test_a_connection_that_was_removed_is_pinged_no_more() -> None:
    pings = Pings(interval_seconds=0.05)
    gone, other = Noted(), Noted()
    gone_slot, other_slot = pings.add(gone), pings.add(other)
    await pinged(gone, 1)
    pings.remove(gone, gone_slot)
    pings.remove(gone, gone_slot)
    count = len(gone.payloads)
    await pinged(other, 3)
    pings.remove(other, other_slot)

    assert len(gone.payloads) == count


async def test_without_connections_there_is_no_timer() -> None:
    pings = Pings(interval_seconds=SLOTS)
    assert timers() == 0
    connections = [Noted() for _ in range(3)]
    slots = [pings.add(connection) for connection in connections]
    assert timers() == 1
    for connection, slot in zip(connections, slots, strict=True):
        pings.remove(connection, slot)
    assert timers() == 0
