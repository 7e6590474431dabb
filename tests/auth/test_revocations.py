"""Revoking a user's tokens, from the SQL call to the check of a token."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import asyncpg
import pytest

from brain.auth.revocations import Revocations
from brain.database.log import Log
from brain.message.event import Batch
from tests.database.changes import logged_events, rung
from tests.database.log_reading import reading
from tests.database.stranger import Stranger, strange

pytestmark = pytest.mark.postgres_versions

REVOKED_AT = (
    "SELECT extract(epoch FROM revoked_at)::float8 FROM brain.revocations WHERE user_id = $1"
)


@pytest.fixture
async def log(database: str) -> AsyncIterator[Log]:
    async with reading(database) as log:
        yield log


@pytest.fixture
async def stranger(postgres: str, database: str) -> AsyncIterator[Stranger]:
    async with strange(postgres, database) as stranger:
        yield stranger


async def batch_of(log: Log, connection: asyncpg.Connection, *statements: str) -> Batch:
    start = await log.tick()
    for statement in statements:
        await connection.execute(statement)
    return await log.newest(start)


async def test_a_batch_reports_the_users_that_it_revokes_once(
    log: Log, connection: asyncpg.Connection
) -> None:
    reported: list[str] = []
    revocations = Revocations(on_revoke=reported.append)
    batch = await batch_of(
        log,
        connection,
        "SELECT brain.revoke('ann'), brain.revoke('bob', 'lost phone')",
        "SELECT brain.revoke('ann')",
        "SELECT brain.publish('news', 'revoked', '{\"user\": \"cid\"}')",
        "INSERT INTO tasks (id) VALUES ('a')",
    )

    revocations.deliver(batch)
    assert reported == ["ann", "bob"]
    revocations.deliver(Batch((), batch.cursor))
    assert reported == ["ann", "bob"]
    assert [revocations.is_revoked(user, None) for user in ("ann", "bob", "cid")] == [
        *[True, True],
        False,
    ]


async def test_earlier_revocations_are_loaded(log: Log, connection: asyncpg.Connection) -> None:
    await connection.execute("SELECT brain.revoke('ann')")
    revocations = Revocations()
    await revocations.load(connection)

    assert revocations.is_revoked("ann", None)
    assert not revocations.is_revoked("bob", None)


async def test_loading_again_reports_those_who_were_revoked_meanwhile(
    connection: asyncpg.Connection,
) -> None:
    reported: list[str] = []
    revocations = Revocations(on_revoke=reported.append)
    await connection.execute("SELECT brain.revoke('ann'), brain.revoke('bob')")
    await revocations.load(connection)
    reported.clear()
    await connection.execute("SELECT brain.revoke('bob'), brain.revoke('cid')")
    await revocations.load(connection)
    await revocations.load(connection)
    assert sorted(reported) == ["bob", "cid"]


def test_a_token_may_have_been_issued_by_a_clock_that_is_ahead() -> None:
    revocations = Revocations(leeway_seconds=10)
    revocations._add("ann", datetime.fromtimestamp(1000, UTC))
    assert [revocations.is_revoked("ann", at) for at in (999, 1000, 1010, 1010.5)] == [
        *[True, True, True],
        False,
    ]


@pytest.mark.parametrize("way", ["loaded", "delivered"])
async def test_tokens_issued_until_the_revocation_are_revoked_and_later_ones_are_not(
    log: Log, connection: asyncpg.Connection, way: str
) -> None:
    batch = await batch_of(log, connection, "SELECT brain.revoke('ann')")
    revoked_at: float = await connection.fetchval(REVOKED_AT, "ann")
    revocations = Revocations()
    if way == "loaded":
        await revocations.load(connection)
    else:
        revocations.deliver(batch)

    assert revocations.is_revoked("ann", revoked_at - 3600)
    assert revocations.is_revoked("ann", revoked_at)
    assert revocations.is_revoked("ann", float("nan"))
    assert not revocations.is_revoked("ann", revoked_at + 1)


async def test_the_latest_revocation_counts_in_whatever_order_they_arrive(
    log: Log, connection: asyncpg.Connection
) -> None:
    first = await batch_of(log, connection, "SELECT brain.revoke('ann', 'first')")
    first_at: float = await connection.fetchval(REVOKED_AT, "ann")
    await connection.execute("SELECT pg_sleep(0.01), brain.revoke('ann')")
    second_at: float = await connection.fetchval(REVOKED_AT, "ann")
    assert second_at > first_at

    revocations = Revocations()
    await revocations.load(connection)
    revocations.deliver(first)
    assert revocations.is_revoked("ann", second_at)


async def test_a_revocation_is_logged_with_its_transaction_for_the_nodes_alone(
    database: str, connection: asyncpg.Connection
) -> None:
    (event,) = await logged_events(
        database,
        connection,
        "BEGIN; SELECT brain.revoke('x'); ROLLBACK",
        "SELECT brain.revoke('ann')",
    )
    stored = await connection.fetch("SELECT user_id FROM brain.revocations")

    assert (event.channel, event.type) == ("brain.revocations", "revoked")
    assert (json.loads(event.data or ""), event.recipient) == ({"user": "ann"}, "")
    assert [row["user_id"] for row in stored] == ["ann"]
    assert await rung(database, connection, "SELECT brain.revoke('ann')") == [True]


async def test_the_reason_is_stored_and_not_sent(
    database: str, connection: asyncpg.Connection
) -> None:
    (event,) = await logged_events(database, connection, "SELECT brain.revoke('ann', 'her secret')")

    assert "secret" not in repr(event)
    assert await connection.fetchval("SELECT reason FROM brain.revocations") == "her secret"


@pytest.mark.parametrize("user", ["NULL", "''", "repeat('x', 256)"])
async def test_an_invalid_user_is_not_revoked(connection: asyncpg.Connection, user: str) -> None:
    with pytest.raises(asyncpg.InvalidParameterValueError, match="1 to 255"):
        await connection.execute(f"SELECT brain.revoke({user})")


async def test_a_role_that_may_publish_cannot_revoke_or_forge_a_revocation(
    stranger: Stranger,
) -> None:
    await stranger.let_publish()
    session = await stranger.session()

    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await session.execute("SELECT brain.revoke('ann')")
    with pytest.raises(asyncpg.InvalidParameterValueError, match="own"):
        await session.execute(
            "SELECT brain.publish('brain.revocations', 'revoked', '{\"user\": \"ann\"}')"
        )


async def test_a_role_that_may_revoke_needs_no_other_right(stranger: Stranger) -> None:
    await stranger.admin.execute(
        f"GRANT USAGE ON SCHEMA brain TO {stranger.role};"
        f"GRANT EXECUTE ON FUNCTION brain.revoke TO {stranger.role}"
    )

    (event,) = await stranger.events("SELECT brain.revoke('ann')")
    assert json.loads(event.data or "") == {"user": "ann"}
