"""Users whose tokens are taken back, from SQL to what a node says of a token."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from brain.database.log import Log
from brain.database.revocations import Revocations
from brain.message.event import Batch
from tests.database.changes import logged_events, rung
from tests.database.log_reading import reading
from tests.database.stranger import Stranger, strange

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


async def test_a_batch_says_whom_it_revokes(log: Log, connection: asyncpg.Connection) -> None:
    revocations = Revocations()
    batch = await batch_of(
        log,
        connection,
        "SELECT brain.revoke('ann'), brain.revoke('bob', 'lost his phone')",
        "SELECT brain.revoke('ann')",
        "SELECT brain.publish('news', 'revoked', '{\"user\": \"cid\"}')",
        "INSERT INTO tasks (id) VALUES ('a')",
    )

    assert revocations.take(batch) == ["ann", "bob"]
    assert revocations.take(Batch((), batch.cursor)) == []
    assert [revocations.is_revoked(user, None) for user in ("ann", "bob", "cid")] == [
        *[True, True],
        False,
    ]


async def test_who_was_revoked_before_is_loaded(log: Log, connection: asyncpg.Connection) -> None:
    await connection.execute("SELECT brain.revoke('ann')")
    revocations = Revocations()
    await revocations.load(connection)

    assert revocations.is_revoked("ann", None)
    assert not revocations.is_revoked("bob", None)


@pytest.mark.parametrize("way", ["loaded", "taken"])
async def test_what_was_issued_until_then_is_refused_and_what_came_later_is_good(
    log: Log, connection: asyncpg.Connection, way: str
) -> None:
    batch = await batch_of(log, connection, "SELECT brain.revoke('ann')")
    revoked_at: float = await connection.fetchval(REVOKED_AT, "ann")
    revocations = Revocations()
    if way == "loaded":
        await revocations.load(connection)
    else:
        revocations.take(batch)

    assert revocations.is_revoked("ann", revoked_at - 3600)
    assert revocations.is_revoked("ann", revoked_at)
    assert revocations.is_revoked("ann", float("nan"))
    assert not revocations.is_revoked("ann", revoked_at + 1)


async def test_revoked_again_counts_from_then_on_whatever_is_heard_first(
    log: Log, connection: asyncpg.Connection
) -> None:
    first = await batch_of(log, connection, "SELECT brain.revoke('ann', 'first')")
    first_at: float = await connection.fetchval(REVOKED_AT, "ann")
    await connection.execute("SELECT pg_sleep(0.01), brain.revoke('ann')")
    second_at: float = await connection.fetchval(REVOKED_AT, "ann")
    assert second_at > first_at

    revocations = Revocations()
    await revocations.load(connection)
    revocations.take(first)
    assert revocations.is_revoked("ann", second_at)


async def test_it_is_told_with_the_transaction_to_nobody_but_the_nodes(
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
    assert (event.data, event.audience) == ({"user": "ann"}, "")
    assert [row["user_id"] for row in stored] == ["ann"]
    assert await rung(database, connection, "SELECT brain.revoke('ann')") == [True]


async def test_the_reason_is_kept_and_not_told(
    database: str, connection: asyncpg.Connection
) -> None:
    (event,) = await logged_events(database, connection, "SELECT brain.revoke('ann', 'her secret')")

    assert "secret" not in repr(event)
    assert await connection.fetchval("SELECT reason FROM brain.revocations") == "her secret"


@pytest.mark.parametrize("user", ["NULL", "''", "repeat('x', 256)"])
async def test_who_cannot_be_a_user_is_not_revoked(
    connection: asyncpg.Connection, user: str
) -> None:
    with pytest.raises(asyncpg.InvalidParameterValueError, match="1 to 255"):
        await connection.execute(f"SELECT brain.revoke({user})")


async def test_who_may_publish_cannot_revoke_and_forges_no_revocation(stranger: Stranger) -> None:
    await stranger.let_publish()
    session = await stranger.session()

    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await session.execute("SELECT brain.revoke('ann')")
    with pytest.raises(asyncpg.InvalidParameterValueError, match="own"):
        await session.execute(
            "SELECT brain.publish('brain.revocations', 'revoked', '{\"user\": \"ann\"}')"
        )


async def test_who_may_revoke_needs_no_other_right(stranger: Stranger) -> None:
    await stranger.admin.execute(
        f"GRANT USAGE ON SCHEMA brain TO {stranger.role};"
        f"GRANT EXECUTE ON FUNCTION brain.revoke TO {stranger.role}"
    )

    (event,) = await stranger.events("SELECT brain.revoke('ann')")
    assert event.data == {"user": "ann"}
