"""Reads on after a crash of PostgreSQL that took back delivered ticks, but none of their events."""

from __future__ import annotations

from collections.abc import AsyncIterator

from brain.database.log import Log, NewestBatch
from brain.errors import CursorLost
from brain.listener.unflushed import Unflushed
from brain.message.cursor import Cursor
from brain.message.event import Batch


async def read_again(log: Log, cursor: Cursor, unflushed: Unflushed) -> AsyncIterator[Batch]:
    """
    Yield what follows the last place that is safe from a crash, but not what was delivered.

    Clients know `cursor`, so all of it has to lie behind that place. The new events get numbers of
    ticks that do, with the nonce of the lost history: a client that returns with such a place is
    sent a reset.

    Raises `CursorLost` if events are lost as well, or no safe place is known.
    """
    place, delivered = unflushed.safe, unflushed.events()
    if place is None or place == cursor:
        raise CursorLost("the log does not hold what was delivered")
    behind = cursor.tick - place.tick
    end = await log.skip_ticks(behind + 1)

    def moved(found: Cursor) -> Cursor:
        if found.place >= end.place:
            return found
        there = Cursor(found.tick + behind, cursor.nonce, found.event_id)
        # The ticks before the end that would be moved behind it are empty; and what comes first may
        # lie in the middle of the tick that was delivered last.
        return end if there.tick >= end.tick else max(there, cursor, key=lambda one: one.place)

    while place.tick < end.tick:
        page = await log.after(place)
        place = page.cursor
        missed = [one for one in page.events if delivered.get(one.id) != one.at]
        for event in page.events:
            delivered.pop(event.id, None)
        is_safe = place.place <= end.place
        unflushed.deliver(NewestBatch(tuple(missed), place, written=0 if is_safe else None))
        if not delivered:
            unflushed.flushed(0)
        yield Batch(tuple([one.at_place(moved(one.cursor)) for one in missed]), moved(place))
    if delivered:
        raise CursorLost("the log lacks events that were delivered")
