from __future__ import annotations

import asyncio

import asyncpg
import pytest

from brain.doctor import log
from brain.settings import Settings
from tests.doctor.examining import found
from tests.end_to_end.brain import PATIENCE_SECONDS
from tests.postgres import as_role, ordinary_role

AGED = """
    UPDATE brain.events SET at = at - make_interval(hours => $1)
"""


async def test_a_log_within_its_retention_is_measured(
    core_connection: asyncpg.Connection, core_database: str
) -> None:
    await core_connection.execute("SELECT brain.publish('news', 'greeting')")
    finding = await found(log.retention, database_url=core_database)

    assert finding.verdict == "ok"
    assert finding.facts["bytes"] > 0
    assert finding.facts["oldest_event_seconds"] < 3600


@pytest.mark.parametrize(("hours", "verdict"), [(20, "ok"), (40, "warning"), (60, "failure")])
async def test_a_log_that_nothing_leaves_is_named(
    core_connection: asyncpg.Connection, core_database: str, hours: int, verdict: str
) -> None:
    await core_connection.execute("SELECT brain.publish('news', 'greeting')")
    await core_connection.execute(AGED, hours)
    finding = await found(log.retention, database_url=core_database)

    assert finding.verdict == verdict
    if verdict != "ok":
        assert "the log grows" in finding.text
        assert "brain.trim" in str(finding.way_out)


async def test_a_log_without_a_free_slot_is_named(
    core_connection: asyncpg.Connection, core_database: str
) -> None:
    for number in range(4):
        await core_connection.execute("SELECT setval('brain.event_id', $1)", (4 + number) << 36)
        await core_connection.execute("SELECT brain.publish('news', 'greeting')")
        finding = await found(log.retention, database_url=core_database)
        assert finding.verdict == ("ok" if number < 3 else "warning")
    assert "brain.trim" in str(finding.way_out)


async def test_the_session_that_keeps_the_log_is_named(
    core_connection: asyncpg.Connection, core_database: str
) -> None:
    await core_connection.execute("SELECT brain.publish('news', 'greeting')")
    await core_connection.execute(AGED, 60)
    pid = core_connection.get_server_pid()
    async with core_connection.transaction():
        await core_connection.execute("LOCK TABLE brain.events_0 IN ACCESS SHARE MODE")

        async def names_it() -> bool:
            finding = await found(log.retention, database_url=core_database)
            return any(f"pid {pid} keeps the log" in line for line in finding.details)

        async with asyncio.timeout(PATIENCE_SECONDS):
            while not await names_it():
                await asyncio.sleep(0.2)


async def test_an_ordinary_role_names_the_session_that_keeps_the_log(
    postgres: str, core_connection: asyncpg.Connection, core_database: str
) -> None:
    await core_connection.execute("SELECT brain.publish('news', 'greeting')")
    await core_connection.execute(AGED, 60)
    async with ordinary_role(postgres) as (role, admin), core_connection.transaction():
        await admin.execute(f"GRANT brain_owner, brain_reader TO {role}")
        await core_connection.execute("LOCK TABLE brain.events_0 IN ACCESS SHARE MODE")
        finding = await found(log.retention, database_url=as_role(core_database, role))

    assert finding.verdict == "failure"
    pid = core_connection.get_server_pid()
    assert any(f"pid {pid} keeps the log" in line for line in finding.details)


async def test_a_large_log_is_a_warning(
    core_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "LARGE_BYTES", 1)
    settings = Settings(retention_seconds=3600)
    finding = await found(log.retention, settings=settings, database_url=core_database)

    assert finding.verdict == "warning"
    assert "BRAIN_RETENTION_SECONDS" in str(finding.way_out)
