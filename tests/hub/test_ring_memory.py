from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterator

import asyncpg
import pytest

from brain.hub.ring import MOST_GONE_BYTES, Ring
from brain.message.event import Batch
from brain.message.json_text import held_bytes
from tests.database.log_reading import reading
from tests.message.rows import as_json, published, updated
from tests.tasks import insert

CHANGES = 1_000
MOST_BYTES_OF_A_TASK = 800
CAPACITY_BYTES = 4 * 2**20
LARGE_BYTES = 100_000

INSERT = "INSERT INTO tasks (id, agent) VALUES (format('task-%s', number), repeat($1, 100))"
UPDATE = "UPDATE tasks SET progress = number % 100 + 1 WHERE id = 'task-12345'"


async def ring_of(database: str, connection: asyncpg.Connection, statement: str) -> Ring:
    """Return a ring with what so many transactions of one statement have changed."""
    async with reading(database) as log:
        start = await log.tick()
        await connection.execute(
            f"DO $$ BEGIN FOR number IN 1..{CHANGES} LOOP {statement}; COMMIT; END LOOP; END $$"
        )
        ring, place = Ring(2**30, 60), start
        while ring.head < CHANGES:
            batch = await log.newest(place)
            ring.append(batch, 0)
            place = batch.cursor
    return ring


def freed_bytes(ring: Ring) -> int:
    """Return how much memory is free once the ring has dropped its events."""
    held = tracemalloc.get_traced_memory()[0]
    assert ring.cursor is not None
    ring.append(Batch((), ring.cursor, follows=False), 0)
    return held - tracemalloc.get_traced_memory()[0]


@pytest.fixture
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


async def test_an_update_of_a_task_takes_at_most_800_bytes_of_the_ring(
    database: str, connection: asyncpg.Connection, traced: None
) -> None:
    await insert(connection, "task-12345")
    ring = await ring_of(database, connection, UPDATE)

    assert freed_bytes(ring) <= MOST_BYTES_OF_A_TASK * CHANGES


@pytest.mark.parametrize("letter", ["a", "é", "日", "😀"])
async def test_the_ring_counts_the_memory_that_it_takes(
    database: str, connection: asyncpg.Connection, traced: None, letter: str
) -> None:
    ring = await ring_of(database, connection, INSERT.replace("$1", f"'{letter}'"))
    for event in ring.since(ring.first, CHANGES):
        assert event.row is not None and event.row.string("agent") == 100 * letter
        event.drop_caches()
    counted, freed = ring.held_bytes, freed_bytes(ring)

    assert freed <= counted <= 1.5 * freed


def test_a_ring_frees_what_it_drops(traced: None) -> None:
    ring = Ring(CAPACITY_BYTES, 60)
    before = tracemalloc.get_traced_memory()[0]
    for number in range(1, 1_000):
        data = as_json("x" * (LARGE_BYTES + number))
        event = published("news", "note", {}).with_values(
            id=number, data=data, size_bytes=held_bytes(data)
        )
        ring.append(Batch((event,), event.cursor), 0)

    assert ring.held_bytes <= CAPACITY_BYTES
    held = tracemalloc.get_traced_memory()[0] - before
    assert held <= CAPACITY_BYTES + 1.1 * MOST_GONE_BYTES


def test_the_garbage_collector_visits_no_event() -> None:
    event = updated("orders", {"id": 1}, status="new")
    assert event.row is not None and event.row.text("id") == "1"
    event.frames["a format"] = b"a frame"

    assert not gc.is_tracked(event)
    assert not gc.is_tracked(event.row)
