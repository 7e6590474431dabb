from __future__ import annotations

import uuid
from typing import Any

import asyncpg
import pytest

from brain.client import Brain
from brain.doctor import event, nodes, websocket
from brain.doctor.check import Check
from brain.doctor.finding import Finding
from brain.doctor.runner import run
from tests.doctor.answering import ALIVE, answering
from tests.doctor.examining import found, request
from tests.end_to_end.brain import RunningBrain, message

CHECKS: tuple[Check, ...] = (
    nodes.alive,
    websocket.websocket,
    websocket.same_database,
    event.logged,
    event.read,
    event.delivered,
)


async def findings(**members: Any) -> dict[str, Finding]:
    return {result.id: result.finding for result in await run(request(**members), CHECKS)}


async def test_a_test_event_arrives_at_a_client_in_milliseconds(
    shared_brain: RunningBrain, shared_database: str
) -> None:
    by_id = await findings(url=shared_brain.http, database_url=shared_database)

    assert {id: finding.verdict for id, finding in by_id.items()} == dict.fromkeys(by_id, "ok")
    assert by_id["event.delivered"].facts["milliseconds"] > 0
    assert by_id["event.delivered"].details == ["by a subscription"]


async def test_no_other_client_gets_the_test_event(
    shared_brain: RunningBrain, shared_database: str
) -> None:
    connection = await asyncpg.connect(shared_database)
    async with shared_brain.client("/ws?channel=news&channel=doctor") as client:
        async with Brain(shared_brain.http) as other:
            changes = other.subscribe("news")
            by_id = await findings(url=shared_brain.http, database_url=shared_database)
            await connection.execute("SELECT brain.publish('news', 'after', '{}')")
            assert (await message(client))["type"] == "after"
            assert not changes.is_live
    await connection.close()

    assert by_id["event.delivered"].verdict == "ok"


async def test_without_a_url_the_event_is_followed_to_the_node(
    shared_brain: RunningBrain, shared_database: str
) -> None:
    by_id = await findings(database_url=shared_database)

    assert by_id["event.read"].verdict == "ok"
    assert by_id["event.delivered"].verdict == "not checked"
    assert "--url" in str(by_id["event.delivered"].way_out)


async def test_a_brain_that_follows_another_database_is_named(
    shared_brain: RunningBrain, core_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event, "DELIVERY_SECONDS", 1.0)
    by_id = await findings(url=shared_brain.http, database_url=core_database)

    assert by_id["connection.database"].verdict == "failure"
    assert "follows another database" in by_id["connection.database"].text
    assert by_id["event.read"].verdict == "not checked"
    assert by_id["event.delivered"].verdict == "failure"
    assert "does not arrive" in by_id["event.delivered"].text


async def test_a_node_that_does_not_read_the_log_is_named(
    core_connection: asyncpg.Connection, core_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event, "READ_SECONDS", 0.3)
    await core_connection.execute(
        "INSERT INTO brain.nodes (id, name, clients, seen_at)"
        " VALUES ($1, 'one 17', 0, clock_timestamp() + interval '4 s')",
        uuid.uuid4(),
    )
    by_id = await findings(database_url=core_database)

    assert by_id["event.logged"].verdict == "ok"
    assert by_id["event.read"].verdict == "failure"
    assert "ticks stand still" in by_id["event.read"].text


async def test_a_client_that_cannot_subscribe_is_named(core_database: str) -> None:
    by_id = await findings(url="http://127.0.0.1:1", database_url=core_database)

    assert by_id["event.delivered"].verdict == "failure"
    assert "no client can subscribe" in by_id["event.delivered"].text
    assert "refused" in by_id["event.delivered"].text


async def test_an_event_that_fails_leaves_the_connection_to_the_other_checks(
    core_connection: asyncpg.Connection, core_database: str
) -> None:
    await core_connection.execute("ALTER TABLE brain.events ADD CHECK (false) NOT VALID")
    results = await run(request(database_url=core_database), [event.logged, nodes.alive])

    assert results[0].finding.verdict == "failure"
    assert "no node serves" in results[1].finding.text


async def test_a_client_whose_tls_fails_is_not_taken_for_the_database(core_database: str) -> None:
    async with answering(ALIVE) as port:
        by_id = await findings(url=f"https://127.0.0.1:{port}", database_url=core_database)

    assert by_id["event.logged"].verdict == "ok"
    assert "no client can subscribe" in by_id["event.delivered"].text


async def test_an_event_that_waits_for_a_lock_is_named(
    core_connection: asyncpg.Connection, core_database: str
) -> None:
    async with core_connection.transaction():
        await core_connection.execute(
            "LOCK TABLE brain.events_0, brain.events_1, brain.events_2, brain.events_3"
        )
        finding = await found(event.logged, database_url=core_database)

    assert finding.verdict == "failure"
    assert "database.locks" in str(finding.way_out)
