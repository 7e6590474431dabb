"""All checks together, where much is wrong: each has its say, and none crashes."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest

from brain.doctor import address, event, examination, http
from brain.doctor.checks import CHECKS
from brain.doctor.finding import Finding
from brain.doctor.runner import first_cause, run
from brain.settings import Settings
from tests.doctor.answering import SILENCE, answering
from tests.doctor.examining import request
from tests.proxy import proxy_to


async def findings(**members: Any) -> tuple[dict[str, Finding], str | None]:
    """Return what every check finds, and the one with the cause."""
    results = await run(request(**members), CHECKS)
    cause = first_cause(results)
    return {each.id: each.finding for each in results}, None if cause is None else cause.id


def crashed(by_id: dict[str, Finding]) -> list[str]:
    return [id for id, each in by_id.items() if "the check itself failed" in each.text]


async def test_a_network_that_swallows_everything_is_named_by_the_first_that_notices(
    core_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examination, "CONNECT_SECONDS", 0.5)
    monkeypatch.setattr(http, "ANSWER_SECONDS", 0.5)
    async with proxy_to(core_database) as (database_url, proxy), answering(SILENCE) as port:
        proxy.swallow()
        url = f"http://127.0.0.1:{port}"
        by_id, cause = await findings(
            database_url=database_url, url=url, metrics_url=f"{url}/metrics", channels=["orders"]
        )

    assert cause == "database.reachable"
    assert crashed(by_id) == []
    assert by_id["connection.http"].verdict == "failure"
    assert by_id["metrics.reachable"].verdict == "failure"
    assert by_id["watches.triggers"].verdict == "not checked"
    assert by_id["connection.websocket"].verdict == "not checked"


async def test_a_brain_that_was_down_for_days_is_the_cause_of_its_old_events(
    core_connection: asyncpg.Connection, core_database: str
) -> None:
    await core_connection.execute("SELECT brain.publish('news', 'greeting')")
    await core_connection.execute("UPDATE brain.events SET at = at - interval '60 hours'")
    settings = Settings(database_url=core_database)
    by_id, cause = await findings(database_url=core_database, settings=settings)

    assert by_id["log.retention"].verdict == "failure"
    assert cause == "nodes.alive"


async def test_a_lock_on_a_table_of_brain_is_named_and_leaves_the_other_checks_their_say(
    core_connection: asyncpg.Connection, core_database: str
) -> None:
    async with core_connection.transaction():
        await core_connection.execute("LOCK TABLE brain.watched")
        by_id, _ = await findings(database_url=core_database)

    assert crashed(by_id) == []
    assert by_id["database.locks"].verdict == "failure"
    assert by_id["watches.triggers"].verdict == "failure"
    assert "database.locks" in str(by_id["watches.triggers"].way_out)
    assert by_id["log.retention"].verdict == "ok"


async def test_what_is_no_token_and_no_channel_crashes_no_check(
    core_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(address, "CONNECT_SECONDS", 0.5)
    monkeypatch.setattr(event, "OPEN_SECONDS", 0.5)
    for token in ("a.b.c", "é", "x" * 9000, "eyJhbGciOiJub25lIn0.e30."):
        by_id, _ = await findings(
            database_url=core_database,
            url="http://127.0.0.1:1",
            token=token,
            channels=["", "brain.x", "a:b:c", "é" * 300],
        )
        assert crashed(by_id) == []
