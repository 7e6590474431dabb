"""The lanes, with queries that the test begins and ends."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable

import pytest

from brain.database.budget import FAST_PLACES, SLOW_PLACES, Lanes, Locked, TooSlow

LONG_SECONDS = 1000.0


class Query:
    """Runs until it is ended."""

    def __init__(self, lanes: Lanes, *names: Hashable, group: Hashable = None) -> None:
        self.is_running = False
        self.error: TooSlow | None = None
        self._end = asyncio.Event()
        self.task = asyncio.create_task(lanes.run(names, self, group=group))

    async def __call__(self, seconds: float) -> float:
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        self.is_running = True
        try:
            await self._end.wait()
        finally:
            self.is_running = False
        return seconds

    async def end(self) -> None:
        self._end.set()
        await self.task


async def settled(*queries: Query) -> list[bool]:
    """Return which run, once nothing more happens by itself."""
    for _ in range(500):
        await asyncio.sleep(0)
    return [query.is_running for query in queries]


def lanes_with(*slow: Hashable) -> Lanes:
    lanes = Lanes(LONG_SECONDS, LONG_SECONDS)
    for name in slow:
        lanes.add_slow(name)
    return lanes


async def test_slow_names_have_places_of_their_own_and_one_query_each() -> None:
    lanes = lanes_with("a", "b", "c")
    quick = [Query(lanes, number) for number in range(FAST_PLACES + 1)]
    slow = [Query(lanes, name) for name in ("a", "a", "b", "c")]
    assert await settled(*quick) == [True] * FAST_PLACES + [False]
    assert SLOW_PLACES == 2
    assert await settled(*slow) == [True, False, True, False]
    await slow[2].end()
    assert await settled(*slow) == [True, False, False, True]
    await slow[0].end()
    assert await settled(*slow) == [False, True, False, True]
    await asyncio.gather(*(query.end() for query in (*quick, slow[1], slow[3])))


async def test_what_waits_for_one_slow_name_keeps_no_other_from_being_read() -> None:
    lanes = lanes_with("a", "b")
    a, both = Query(lanes, "a"), Query(lanes, "a", "b")
    assert await settled(a, both) == [True, False]
    b = Query(lanes, "b")
    assert await settled(a, both, b) == [True, False, True]
    await a.end()
    assert await settled(both, b) == [False, True]
    await b.end()
    assert await settled(both) == [True]
    await both.end()


async def test_those_that_wait_in_the_fast_lane_leave_it_once_their_name_is_slow() -> None:
    lanes = lanes_with()
    first = [Query(lanes, "slow", number) for number in range(FAST_PLACES)]
    crowd = [Query(lanes, "slow", number) for number in range(10, 50)]
    quick = Query(lanes, "quick")
    assert await settled(*first, quick) == [True] * FAST_PLACES + [False]
    lanes.add_slow("slow")
    await first[0].end()
    assert await settled(quick) == [True]
    assert sum(await settled(*crowd)) == 1
    for task in (query.task for query in crowd):
        task.cancel()
    assert (await settled(*crowd)) == [False] * 40
    await quick.end()
    await first[1].end()


async def test_of_a_group_one_query_runs_at_a_time_in_each_lane() -> None:
    lanes = lanes_with(("feed", 8), ("feed", 9))
    queries = [Query(lanes, ("feed", number), group="feed") for number in range(10)]
    other = Query(lanes, ("other", 0), group="other")
    running = await settled(*queries, other)
    assert running == [True, *[False] * 7, True, False, True]
    for query in (*queries, other):
        await query.end()


async def test_a_query_that_is_cancelled_leaves_its_place_and_its_turn() -> None:
    for names in ((), ("a", "b", "c")):
        lanes = lanes_with(*names)
        first = [Query(lanes, name, group=name) for name in "ab"]
        waiting = [Query(lanes, name, group=name) for name in "abc"]
        assert await settled(*first, *waiting) == [True, True, False, False, False]
        waiting[0].task.cancel()
        for query in first:
            query.task.cancel()
        assert await settled(*first, *waiting) == [False, False, False, True, True]
        for query in waiting[1:]:
            await query.end()


@pytest.mark.parametrize("slow", [(), ("a",)])
async def test_a_place_is_waited_for_so_long_only(slow: tuple[str, ...]) -> None:
    lanes = Lanes(LONG_SECONDS, wait_seconds=0.05)
    for name in slow:
        lanes.add_slow(name)
    first = Query(lanes, "a", group="g")
    assert await settled(first) == [True]
    second = Query(lanes, "a", group="g")
    with pytest.raises(TooSlow, match="too many others wait for it") as raised:
        await second.task
    assert raised.value.name == "a"
    await first.end()


async def test_a_query_that_meets_a_lock_has_no_place_meanwhile_and_is_not_slow() -> None:
    lanes = lanes_with()
    unlocked = asyncio.Event()
    tries = []

    async def query(seconds: float) -> str:
        tries.append(seconds)
        if not unlocked.is_set():
            raise Locked("a")
        return "read"

    async def until_unlocked(name: Hashable) -> bool:
        assert name == "a"
        return await unlocked.wait()

    waiting = [
        asyncio.create_task(lanes.run(["a"], query, until_unlocked=until_unlocked))
        for _ in range(10)
    ]
    quick = [Query(lanes, number) for number in range(FAST_PLACES)]
    assert await settled(*quick) == [True] * FAST_PLACES
    assert len(tries) == 10 and not lanes._slow_names
    unlocked.set()
    for each in quick:
        await each.end()
    assert await asyncio.gather(*waiting) == ["read"] * 10


async def test_a_name_is_slow_until_it_is_read_quickly() -> None:
    lanes = lanes_with()
    query = Query(lanes, "a", "b")
    query.error = TooSlow("b", "it took too long")
    assert await settled(query) == [True]
    assert list(lanes._slow_names) == ["b"]
    await query.end()
    assert query.task.result() == LONG_SECONDS
    assert not lanes._slow_names
