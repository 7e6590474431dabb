from __future__ import annotations

import asyncio

import pytest

from brain.database.single_flight import SingleFlight


class Calls:
    """Calls that are counted, and end when the test sets `may_end`."""

    def __init__(self) -> None:
        self.begun = 0
        self.may_end = asyncio.Event()
        self.error: Exception | None = None

    async def __call__(self) -> int:
        self.begun += 1
        number = self.begun
        await self.may_end.wait()
        if self.error is not None:
            raise self.error
        return number


async def begun(*tasks: asyncio.Task[int]) -> None:
    """Let every task run until it waits."""
    for _ in range(2 * len(tasks)):
        await asyncio.sleep(0)


async def test_callers_with_one_key_share_a_call_and_the_next_one_begins_another() -> None:
    flight: SingleFlight[str, int] = SingleFlight("test")
    calls = Calls()
    tasks = [asyncio.create_task(flight.run("a", calls)) for _ in range(50)]
    await begun(*tasks)
    calls.may_end.set()

    assert set(await asyncio.gather(*tasks)) == {1}
    assert await flight.run("a", calls) == 2


async def test_callers_with_other_keys_do_not_wait_for_each_other() -> None:
    flight: SingleFlight[str, int] = SingleFlight("test")
    slow, quick = Calls(), Calls()
    waiting = asyncio.create_task(flight.run("a", slow))
    await begun(waiting)
    quick.may_end.set()

    assert await flight.run("b", quick) == 1
    assert not waiting.done()
    slow.may_end.set()
    assert await waiting == 1


async def test_an_error_is_raised_for_every_caller_and_not_kept() -> None:
    flight: SingleFlight[str, int] = SingleFlight("test")
    calls = Calls()
    calls.error = LookupError("no such row")
    tasks = [asyncio.create_task(flight.run("a", calls)) for _ in range(3)]
    await begun(*tasks)
    calls.may_end.set()

    for task in tasks:
        with pytest.raises(LookupError, match="no such row"):
            await task
    calls.error = None
    assert await flight.run("a", calls) == 2


async def test_a_caller_that_is_cancelled_does_not_cancel_the_others() -> None:
    flight: SingleFlight[str, int] = SingleFlight("test")
    calls = Calls()
    first, second = (asyncio.create_task(flight.run("a", calls)) for _ in range(2))
    await begun(first, second)
    first.cancel()
    await begun(first, second)
    calls.may_end.set()

    assert await second == 1
    assert first.cancelled()


async def test_a_call_whose_callers_are_all_cancelled_goes_on_and_its_error_is_retrieved() -> None:
    """The next caller joins it; an error that no caller awaits reaches no exception handler."""
    reported: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    flight: SingleFlight[str, int] = SingleFlight("test")
    calls = Calls()
    caller = asyncio.create_task(flight.run("a", calls))
    await begun(caller)
    caller.cancel()
    await asyncio.wait([caller])
    joined = asyncio.create_task(flight.run("a", calls))
    await begun(joined)
    assert calls.begun == 1
    joined.cancel()
    await asyncio.wait([joined])

    calls.error = LookupError("no such row")
    calls.may_end.set()
    while flight._running:
        await asyncio.sleep(0)
    del caller, joined

    assert reported == []


async def test_a_later_call_begins_after_those_who_ask_for_it_and_is_shared() -> None:
    flight: SingleFlight[str, int] = SingleFlight("test")
    calls = Calls()
    early = asyncio.create_task(flight.run("a", calls))
    await begun(early)
    late = [asyncio.create_task(flight.run_later("a", calls)) for _ in range(3)]
    await begun(*late)
    assert calls.begun == 1
    calls.may_end.set()

    assert await early == 1
    assert await asyncio.gather(*late) == [2, 2, 2]
