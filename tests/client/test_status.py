"""How a client says how its connections are."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from brain.client import Brain, Status
from brain.client.status import StatusBoard
from tests.client.following import up_to
from tests.end_to_end.brain import RunningBrain


async def test_the_status_is_yielded_from_the_first_to_the_end_of_the_client(
    shared_brain: RunningBrain, orders: asyncpg.Connection
) -> None:
    called: list[str] = []
    async with Brain(
        shared_brain.http, on_status=lambda status: called.append(status.state)
    ) as brain:
        statuses = brain.statuses()
        assert (await anext(statuses)).state == "connecting"
        await up_to(brain.subscribe("orders", snapshot=True), "live")
        assert (await anext(statuses)).state == brain.status.state == "live"
    assert [status.state async for status in statuses] == ["closed"]
    assert called == ["catching-up", "live", "closed"]


async def test_the_status_is_that_of_the_connection_that_is_worst_off() -> None:
    board = StatusBoard()
    board.report("a", Status("live"))
    board.report("b", Status("offline", "no route"))
    assert board.status == Status("offline", "no route")
    board.report("b", Status("closed", "revoked", code=4503))
    assert board.status.state == "live"
    board.report("a", Status("closed", "revoked", code=4503))
    assert board.status.code == 4503


async def test_one_loop_over_the_statuses_holds_up_no_other() -> None:
    board = StatusBoard()
    waiting = [asyncio.create_task(board.change_from(board.status)) for _ in range(2)]
    await asyncio.sleep(0)
    board.report("a", Status("live"))
    assert [status and status.state for status in await asyncio.gather(*waiting)] == ["live"] * 2


def test_a_callback_that_fails_is_logged_and_ends_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(status: Status) -> None:
        raise LookupError(status.state)

    board = StatusBoard(fail)
    board.report("a", Status("live"))
    assert board.status.state == "live"
    assert "LookupError: live" in caplog.text
