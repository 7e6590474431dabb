"""Transactions that switch the capture of changes off: one reset per channel instead of rows."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from brain.message.event import Event, Operation
from tests.database.changes import logged_events, rung
from tests.database.stranger import Stranger, strange

pytestmark = pytest.mark.postgres_versions

OFF = "SET LOCAL brain.capture = 'off';"
CALLED = "SELECT brain.capture_off();"
TABLES = """
    CREATE TABLE things (id int PRIMARY KEY, a int);
    CREATE TABLE others (id int PRIMARY KEY, a int);
"""
WATCH = "SELECT brain.watch($1::text::regclass, $1, '{id,a}', timing => $2)"
BACKFILL = """
    INSERT INTO things SELECT n, 0 FROM generate_series(1, 50) n;
    UPDATE things SET a = 1; INSERT INTO others VALUES (1); DELETE FROM things WHERE id > 10;
    UPDATE others SET id = 2;
"""

both_timings = pytest.mark.parametrize("timing", ["immediate", "deferred"])
both_ways = pytest.mark.parametrize("off", [OFF, CALLED], ids=["setting", "function"])


async def watched(connection: asyncpg.Connection, timing: str = "immediate") -> None:
    await connection.execute(TABLES)
    for table in ("things", "others"):
        await connection.execute(WATCH, table, timing)


def told(events: list[Event]) -> list[tuple[str, str]]:
    return [(event.channel, event.operation.value) for event in events]


@both_timings
@both_ways
async def test_each_channel_gets_one_reset_in_a_transaction(
    database: str, connection: asyncpg.Connection, timing: str, off: str
) -> None:
    await watched(connection, timing)

    events = await logged_events(
        database,
        connection,
        f"BEGIN; {off} {BACKFILL} COMMIT",
        f"BEGIN; {off} UPDATE things SET a = 2; COMMIT",
        "UPDATE things SET a = 3 WHERE id = 1",
    )

    assert told(events) == [("things", "R"), ("others", "R"), ("things", "R"), ("things", "U")]
    for event in events[:3]:
        assert (event.key, event.old, event.recipient) == (None, None, None)
        assert event.data == '"rows were changed without being sent one by one"'


@both_timings
async def test_a_truncate_is_a_reset_too(
    database: str, connection: asyncpg.Connection, timing: str
) -> None:
    await watched(connection, timing)
    await connection.execute("INSERT INTO things VALUES (1)")

    events = await logged_events(database, connection, f"BEGIN; {OFF} TRUNCATE things; COMMIT")

    assert told(events) == [("things", "R")]


async def test_a_reset_that_is_rolled_back_is_appended_by_the_next_change(
    database: str, connection: asyncpg.Connection
) -> None:
    await watched(connection)

    events = await logged_events(
        database,
        connection,
        f"""
        BEGIN; {OFF}
        INSERT INTO others VALUES (1);
        SAVEPOINT s; INSERT INTO things VALUES (1); ROLLBACK TO s;
        SAVEPOINT t; INSERT INTO things VALUES (2); RELEASE t;
        INSERT INTO things VALUES (3); INSERT INTO others VALUES (2);
        COMMIT
        """,
        f"BEGIN; {OFF} INSERT INTO things VALUES (4); ROLLBACK",
        f"BEGIN; SAVEPOINT s; {OFF} INSERT INTO things VALUES (4); ROLLBACK TO s;"
        " INSERT INTO things VALUES (5); COMMIT",
    )

    assert told(events) == [("others", "R"), ("things", "R"), ("things", "I")]


async def test_capture_goes_on_where_it_is_switched_on_again(
    database: str, connection: asyncpg.Connection
) -> None:
    await watched(connection)

    events = await logged_events(
        database,
        connection,
        f"""
        BEGIN; INSERT INTO things VALUES (1); {OFF}
        INSERT INTO things VALUES (2); SET LOCAL brain.capture = 'on';
        INSERT INTO things VALUES (3); {OFF} INSERT INTO things VALUES (4); COMMIT
        """,
        f"BEGIN; {OFF} COMMIT",
        "INSERT INTO things VALUES (5)",
    )

    assert told(events) == [("things", "I"), ("things", "R"), ("things", "I"), ("things", "I")]


async def test_deferred_changes_are_captured_as_it_is_set_at_the_end(
    database: str, connection: asyncpg.Connection
) -> None:
    await watched(connection, "deferred")

    events = await logged_events(
        database,
        connection,
        f"BEGIN; INSERT INTO things VALUES (1); {OFF} COMMIT",
        f"BEGIN; {OFF} INSERT INTO things VALUES (2); SET CONSTRAINTS ALL IMMEDIATE;"
        " INSERT INTO things VALUES (3); COMMIT",
    )

    assert told(events) == [("things", "R"), ("things", "R")]


async def test_a_reset_notifies_a_parked_node(
    database: str, connection: asyncpg.Connection
) -> None:
    await watched(connection)

    assert await rung(
        database, connection, f"BEGIN; {OFF} INSERT INTO things VALUES (1); COMMIT"
    ) == [True]


async def test_a_change_without_a_trigger_is_no_reset(
    database: str, connection: asyncpg.Connection
) -> None:
    await watched(connection)

    assert not await logged_events(
        database, connection, f"BEGIN; {OFF} UPDATE things SET a = 1; COMMIT"
    )


@pytest.fixture
async def stranger(postgres: str, database: str) -> AsyncIterator[Stranger]:
    async with strange(postgres, database) as stranger:
        yield stranger


async def warned(stranger: Stranger, session: asyncpg.Connection, statement: str) -> list[str]:
    warnings: list[str] = []
    session.add_log_listener(lambda _, message: warnings.append(message.message))
    await session.execute(statement)
    return warnings


INSERTS = "INSERT INTO things (id) VALUES (1); INSERT INTO things (id) VALUES (2);"


async def test_a_role_that_may_not_switch_it_off_is_warned_and_its_changes_are_captured(
    stranger: Stranger,
) -> None:
    session = await stranger.session()

    warnings = await warned(stranger, session, f"BEGIN; {OFF} {INSERTS} COMMIT")

    assert warnings == [
        f"the changes are captured: role {stranger.role} may not switch that off;"
        f" this allows it: GRANT EXECUTE ON FUNCTION brain.capture_off TO {stranger.role}"
    ]
    logged = await stranger.admin.fetch(
        "SELECT operation FROM brain.events WHERE channel = 'things' ORDER BY id"
    )
    assert [row["operation"] for row in logged] == [b"I", b"I"]
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await session.execute(CALLED)


@both_ways
async def test_a_role_that_was_granted_it_may_switch_it_off(stranger: Stranger, off: str) -> None:
    await stranger.admin.execute(
        f"GRANT EXECUTE ON FUNCTION brain.capture_off TO {stranger.role};"
        f"GRANT USAGE ON SCHEMA brain TO {stranger.role}"
    )

    (event,) = await stranger.events(f"BEGIN; {off} {INSERTS} COMMIT")

    assert event.operation is Operation.RESET


async def test_the_role_that_counts_is_that_of_set_role(stranger: Stranger) -> None:
    """Not that of the login, nor the owner of the trigger function."""
    as_other = f"SET ROLE {stranger.role}; BEGIN; {OFF} {INSERTS} COMMIT; RESET ROLE"
    warnings = await warned(stranger, stranger.admin, as_other)
    await stranger.admin.execute(f"GRANT EXECUTE ON FUNCTION brain.capture_off TO {stranger.role}")
    await stranger.admin.execute(as_other.replace("(1)", "(3)").replace("(2)", "(4)"))

    logged = await stranger.admin.fetch(
        "SELECT operation FROM brain.events WHERE channel = 'things' ORDER BY id"
    )
    assert [row["operation"] for row in logged] == [b"I", b"I", b"R"]
    assert len(warnings) == 1 and stranger.role in warnings[0]
