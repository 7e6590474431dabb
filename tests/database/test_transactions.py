"""What the log says of the transaction of each event: its id, and where it ends."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from brain.database.connection import opened_pool
from brain.database.log import PAGE_EVENTS
from brain.database.transactions import AwaitedTransactions, Outcome
from brain.message.event import Event
from tests.database.log_reading import events_after, reading

pytestmark = pytest.mark.postgres_versions

PUBLISH = "SELECT brain.publish('news', 'n', to_jsonb(n)) FROM generate_series(1, $1::int) n"


def ends_in(events: list[Event]) -> list[tuple[int, int]]:
    """Return the place of each event that ends a transaction, and the `ends` that it has."""
    return [(place, event.ends) for place, event in enumerate(events) if event.ends is not None]


async def test_an_event_has_the_id_of_its_transaction(core_database: str) -> None:
    writer = await asyncpg.connect(core_database)
    async with reading(core_database) as log:
        start = await log.tick()
        async with writer.transaction():
            await writer.execute(PUBLISH, 2)
            id = int(await writer.fetchval("SELECT pg_current_xact_id()::text"))
        await writer.execute(PUBLISH, 1)

        events = await events_after(log, start)
    await writer.close()

    assert [event.transaction_id == id for event in events] == [True, True, False]


async def test_the_last_event_of_each_of_two_interleaved_transactions_says_so(
    core_database: str,
) -> None:
    one, two = await asyncpg.connect(core_database), await asyncpg.connect(core_database)
    async with reading(core_database) as log:
        start = await log.tick()
        async with one.transaction(), two.transaction():
            for writer in (one, two, one, two, one):
                await writer.execute(PUBLISH, 1)

        events = await events_after(log, start)
    for writer in (one, two):
        await writer.close()

    assert ends_in(events) == [(3, events[1].id), (4, events[0].id)]


@pytest.mark.parametrize("most", [PAGE_EVENTS - 1, PAGE_EVENTS, PAGE_EVENTS + 1, 3 * PAGE_EVENTS])
async def test_a_transaction_of_several_pages_ends_once_and_says_that_it_began_before(
    core_database: str, most: int
) -> None:
    writer = await asyncpg.connect(core_database)
    async with reading(core_database) as log:
        start = await log.tick()
        await writer.execute(PUBLISH, most)

        events = await events_after(log, start)
    await writer.close()

    ((place, ends),) = ends_in(events)
    assert place == len(events) - 1 == most - 1
    assert ends == (events[0].id if most <= PAGE_EVENTS else 0)


async def test_a_reader_that_begins_within_a_transaction_finds_the_same_end(
    core_database: str,
) -> None:
    writer = await asyncpg.connect(core_database)
    async with reading(core_database) as log:
        start = await log.tick()
        await writer.execute(PUBLISH, 5)
        whole = await events_after(log, start)

        rest = await events_after(log, whole[1].cursor)
        last = await events_after(log, whole[3].cursor)
    await writer.close()

    assert ends_in(rest) == [(2, 0)]
    assert ends_in(last) == [(0, 0)]


async def test_what_was_committed_before_a_transaction_without_events_is_sent_before_its_answer(
    core_database: str,
) -> None:
    """Nothing else cuts a tick here: it is cut for the answer, and somebody is told to read it."""
    ticks: list[int] = []
    outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    async with opened_pool(core_database) as pool:
        transactions = AwaitedTransactions(on_tick=lambda: ticks.append(1))
        transactions.connect(pool)
        task = asyncio.create_task(transactions.run())
        writer = await asyncpg.connect(core_database)
        await writer.execute(PUBLISH, 1)
        id = await writer.fetchval("SELECT pg_current_xact_id()::text")
        transactions.wait(int(id), outcome.set_result)

        answer = await outcome
        task.cancel()
        sees_both = await writer.fetchval(
            "SELECT bool_and(pg_visible_in_snapshot(one, t.snapshot))"
            "  FROM brain.ticks t, (SELECT transaction_id FROM brain.events"
            "                        UNION ALL SELECT $2::text::xid8) seen (one) WHERE t.id = $1",
            answer.tick,
            id,
        )
        await writer.close()

    assert (answer.state, sees_both, ticks) == ("committed", True, [1])
