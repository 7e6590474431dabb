"""What a program is told if it cannot be served."""

from __future__ import annotations

import asyncio
import logging

import asyncpg
import pytest

from brain.client import Brain, InvalidUrl, Refused, Status
from tests.client.blocking_proxy import blocking_proxy
from tests.client.following import next_of, ops, up_to
from tests.end_to_end.brain import RunningBrain, becomes


@pytest.mark.parametrize(
    "url", ["localhost:5221", "ftp://localhost", "http://", "http://host:port", "http://h/?a=b"]
)
def test_a_text_that_is_no_url_of_brain_is_refused_at_once(url: str) -> None:
    with pytest.raises(InvalidUrl, match="URL"):
        Brain(url)


async def test_a_wrong_path_is_an_error_at_once(shared_brain: RunningBrain) -> None:
    async with Brain(f"{shared_brain.http}/nowhere") as brain:
        with pytest.raises(Refused, match="404") as refused:
            await next_of(brain.subscribe("orders"))
        with pytest.raises(Refused, match="404"):
            await brain.publish("news", "greeting")
    assert refused.value.code == 404


@pytest.mark.parametrize("transport", ["auto", "websocket", "sse"])
async def test_a_server_without_tls_is_an_error_at_once(
    shared_brain: RunningBrain, transport: str
) -> None:
    url = shared_brain.http.replace("http:", "https:")
    async with Brain(url, transport=transport) as brain:  # type: ignore[arg-type]
        with pytest.raises(Refused, match="use http:// or ws://") as refused:
            await next_of(brain.subscribe("orders"))
    assert refused.value.code == "tls"


async def test_a_server_that_is_not_there_is_waited_for_and_shown(
    caplog: pytest.LogCaptureFixture,
) -> None:
    statuses: list[Status] = []
    async with Brain("http://localhost:1", on_status=statuses.append) as brain:
        task = asyncio.create_task(next_of(brain.subscribe("orders")))
        await becomes(lambda: brain.status.state == "offline")
        task.cancel()
        await asyncio.wait({task})
    states = [status.state for status in statuses]
    assert (states[0], states[-1]) == ("offline", "closed")
    assert "connect" in (statuses[0].why or "").lower()
    warnings = [each for each in caplog.records if each.levelno == logging.WARNING]
    assert len(warnings) == 1 and "orders" in warnings[0].getMessage()


async def test_a_refused_filter_harms_no_other_subscription(
    shared_brain: RunningBrain, orders: asyncpg.Connection
) -> None:
    async with Brain(shared_brain.http) as brain:
        good = brain.subscribe("orders", snapshot=True)
        await up_to(good, "live")
        bad = brain.subscribe("orders", where={"nosuch": 1})
        with pytest.raises(Refused, match="nosuch") as refused:
            await next_of(bad)
        with pytest.raises(StopAsyncIteration):
            await anext(bad)
        assert brain.status.state == "live"
        await orders.execute("INSERT INTO orders VALUES (1, 'new', 1)")
        assert ops([await next_of(good)]) == [("insert", 1)]
    assert (refused.value.code, bool(refused.value.advice)) == ("invalid_filter", True)


async def test_a_refused_filter_is_named_over_server_sent_events_too(
    shared_brain: RunningBrain, orders: asyncpg.Connection
) -> None:
    async with blocking_proxy(shared_brain.port) as proxy, Brain(proxy.url) as brain:
        with pytest.raises(Refused, match="nosuch") as refused:
            await next_of(brain.subscribe("orders", where={"nosuch": 1}))
    assert refused.value.code == 400


async def test_a_frame_that_brain_does_not_know_is_refused(
    shared_brain: RunningBrain, orders: asyncpg.Connection
) -> None:
    async with Brain(shared_brain.http) as brain:
        with pytest.raises(Refused) as refused:
            await next_of(brain.subscribe("orders", snapshot=True, limit=0))
    assert refused.value.code == "malformed"


async def test_a_client_can_only_be_used_within_its_context(shared_brain: RunningBrain) -> None:
    brain = Brain(shared_brain.http)
    with pytest.raises(RuntimeError, match="async with"):
        brain.subscribe("orders")
