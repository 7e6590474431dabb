"""Filters get the types of the columns of watched tables, and learn when these change."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import asyncpg
import pytest

from brain.database.connection import opened_pool
from brain.database.filter_binder import MOST_AT_ONCE, FilterBinder
from brain.database.row_conditions import bind_condition
from brain.errors import FilterRefused, LogUnavailable
from brain.message.condition import EVERYTHING, Condition
from brain.message.condition_binding import comparisons
from brain.message.condition_parsing import parse_condition
from brain.problems import Problems

THINGS = """
    CREATE TYPE mood AS ENUM ('sad', 'happy');
    CREATE DOMAIN feeling AS mood;
    CREATE TABLE things (id int PRIMARY KEY, a int, b text, mood feeling, c text);
    SELECT brain.watch('things', 'things', '{id,a,b,mood}');
    CREATE TABLE others (id int PRIMARY KEY);
    SELECT brain.watch('others', 'others', '{id}');
"""
CONDITION = parse_condition({"a": {"gt": 1}})

pytestmark = pytest.mark.postgres_versions


@pytest.mark.parametrize(
    ("change", "channels"),
    [
        ("ALTER TABLE things ALTER a TYPE bigint", {"things"}),
        ("ALTER TABLE things ALTER b TYPE varchar(10)", {"things"}),
        ('ALTER TABLE things ALTER b TYPE text COLLATE "C"', {"things"}),
        ("ALTER TABLE things DROP a", {"things"}),
        ("ALTER TABLE things RENAME a TO z", {"things"}),
        ("ALTER TYPE mood ADD VALUE 'angry'", {"things"}),
        ("ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'", {"things"}),
        ("SELECT brain.watch('things', 'things', '{id,a}')", {"things"}),
        ("SELECT brain.unwatch('things')", {"things"}),
        ("DROP TABLE things", {"things"}),
        ("SELECT brain.unwatch('others'); SELECT brain.watch('others', 'more', '{id}')", 2),
        ("ALTER TABLE things DROP c", set()),
        ("ALTER TABLE things ADD d int", set()),
        ("INSERT INTO things VALUES (1, 2)", set()),
    ],
)
async def test_a_change_of_what_filters_compare_is_noticed_and_no_other(
    database: str, connection: asyncpg.Connection, change: str, channels: set[str] | int
) -> None:
    await connection.execute(THINGS)
    seen: list[frozenset[str]] = []
    async with opened_pool(database) as pool:
        binder = FilterBinder(4.0, on_change=seen.append)
        binder.poll_seconds = 0.01
        binder.connect(pool)
        await binder.bind("things", CONDITION)
        following = asyncio.create_task(binder.run())
        await connection.execute(change)
        expected = {"others", "more"} if channels == 2 else channels
        if expected:
            async with asyncio.timeout(20):
                while not seen:
                    await asyncio.sleep(0.01)
        else:  # what comes after it is noticed alone
            await binder._read()
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following

    assert [set(one) for one in seen] == ([expected] if expected else [])


async def test_nothing_is_read_before_there_is_a_filter(
    database: str, connection: asyncpg.Connection
) -> None:
    async with opened_pool(database) as pool:
        problems = Problems()
        binder = FilterBinder(4.0, problems)
        following = asyncio.create_task(binder.run())
        for _ in range(20):
            await asyncio.sleep(0)
        assert problems.recent() == []  # without a pool any read fails
        assert await binder.bind("things", EVERYTHING) == EVERYTHING
        with pytest.raises(LogUnavailable):
            await binder.bind("things", CONDITION)
        binder.connect(pool)
        await connection.execute(THINGS)
        condition = await binder.bind("things", CONDITION)
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following

    assert [one.column.kind for one in comparisons(condition)] == ["number"]


async def test_a_filter_that_is_asked_for_after_a_change_knows_it(
    database: str, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the same one is being bound meanwhile."""
    await connection.execute(THINGS)
    is_bound, may_go_on = asyncio.Event(), asyncio.Event()

    async def late(*arguments: Any) -> Condition:
        found = await bind_condition(*arguments)
        is_bound.set()
        await may_go_on.wait()
        return found

    monkeypatch.setattr("brain.database.filter_binder.bind_condition", late)
    async with opened_pool(database) as pool:
        binder = FilterBinder(4.0)
        binder.connect(pool)
        first = asyncio.create_task(binder.bind("things", CONDITION))
        await is_bound.wait()
        await connection.execute("ALTER TABLE things DROP a")
        second = asyncio.create_task(binder.bind("things", CONDITION))
        await asyncio.sleep(0)
        may_go_on.set()

        assert [one.column.kind for one in comparisons(await first)] == ["number"]
        with pytest.raises(FilterRefused, match="a was dropped or renamed"):
            await second


async def test_without_the_database_a_filter_cannot_be_bound(
    database: str, connection: asyncpg.Connection
) -> None:
    await connection.execute(THINGS)
    async with opened_pool(database) as pool:
        binder = FilterBinder(4.0)
        binder.connect(pool)
        await binder.bind("things", CONDITION)
    with pytest.raises(LogUnavailable, match="cannot be looked up at the moment"):
        await binder.bind("things", CONDITION)


async def test_many_filters_at_once_are_all_bound_and_leave_connections_to_others(
    database: str, connection: asyncpg.Connection
) -> None:
    await connection.execute(THINGS)
    async with opened_pool(database) as pool:
        binder = FilterBinder(4.0)
        binder.connect(pool)
        conditions = [parse_condition({"a": {"gt": number}}) for number in range(300)]
        found = await asyncio.gather(*(binder.bind("things", one) for one in conditions))
        connections = pool.get_size()

    assert len(set(found)) == 300
    assert connections <= MOST_AT_ONCE + 1
