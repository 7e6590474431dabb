"""Python subscriptions that begin with what happened in the last so many seconds."""

from __future__ import annotations

import asyncpg

from brain.client import Brain
from brain.client.query import Query
from tests.client.following import next_of, ops, up_to
from tests.end_to_end.brain import RunningBrain, has_sent_everything


async def test_since_begins_with_what_happened_and_then_the_rows_follow(
    shared_brain: RunningBrain, shared_database: str, orders: asyncpg.Connection
) -> None:
    await orders.execute("INSERT INTO orders VALUES (1, 'old', 1)")
    await has_sent_everything(shared_brain, shared_database)
    await orders.execute("UPDATE brain.ticks SET at = at - interval '1 hour'")
    await orders.execute("INSERT INTO orders VALUES (2, 'new', 1.50)")
    await has_sent_everything(shared_brain, shared_database)

    async with Brain(shared_brain.http) as brain:
        history = await up_to(brain.subscribe("orders", since=600), "live")
        assert ops(history) == [("insert", 2), ("live", None)]
        rows = brain.subscribe("orders", since=600, snapshot=True, name="rows", decimals=True)
        assert ops(await up_to(rows, "live")) == [
            ("insert", 2),
            ("snapshot", 1),
            ("snapshot", 2),
            ("snapshot-end", None),
            ("live", None),
        ]
        assert rows.is_live
        await orders.execute("DELETE FROM orders WHERE id = 2")
        change = await next_of(rows)
    assert str((change.old or {})["total"]) == "1.50"


def test_the_seconds_count_from_when_they_were_given() -> None:
    query = Query("orders", since=600, asked_at=-3600.0)
    assert query.frame(None, is_first=True)["since"] > 3600
    assert "since" not in query.frame("1.2.3", is_first=True)
    assert "since" not in query.frame(None, is_first=False)
