from __future__ import annotations

from brain.database.log import NewestBatch
from brain.listener.unflushed import Unflushed
from brain.message.cursor import Cursor
from tests.message.rows import inserted

NONCE = 7


def batch(tick: int, written: int | None) -> NewestBatch:
    """Return a batch with one event, whose id is the number of its tick."""
    cursor = Cursor(tick, NONCE)
    event = inserted("tasks", {"id": 1}).at_place(Cursor(tick, NONCE, tick))
    return NewestBatch((event,), cursor, written=written)


def delivered(*written: int | None) -> Unflushed:
    """Return what is known after batches of the ticks 1, 2, …, by the WAL that they need."""
    unflushed = Unflushed()
    for tick, position in enumerate(written, start=1):
        unflushed.deliver(batch(tick, position))
    return unflushed


def test_no_place_is_safe_at_first() -> None:
    assert delivered(10).safe is None


def test_what_is_on_the_disk_up_to_its_end_is_safe() -> None:
    unflushed = delivered(10, 20, 30)
    unflushed.flushed(20)

    assert unflushed.safe == Cursor(2, NONCE)
    assert list(unflushed.events()) == [3]


def test_a_tick_that_waited_for_nothing_is_safe_with_a_later_one() -> None:
    unflushed = delivered(10, None, 30)
    unflushed.flushed(20)

    assert unflushed.safe == Cursor(1, NONCE)
    assert unflushed.needs_flush

    unflushed.flushed(30)

    assert unflushed.safe == Cursor(3, NONCE)
    assert not unflushed.needs_flush


def test_after_a_flush_everything_is_safe() -> None:
    unflushed = delivered(10, None)
    unflushed.flushed()

    assert unflushed.safe == Cursor(2, NONCE)
    assert not unflushed.events()
