"""A user who is without a connection for a short while is not published as offline."""

from __future__ import annotations

import asyncpg
import pytest

from tests.presence.reporting import Node, becomes, last_seen, published, running_node

pytestmark = pytest.mark.postgres_versions

# Longer than any test, and short.
LONG, SHORT = 3600.0, 0.3
ONLINE, OFFLINE = ("ann", "online"), ("ann", "offline")
LEAVING = "SELECT count(*) FROM brain.presence WHERE offline_at IS NOT NULL"
LET_GRACE_END = "UPDATE brain.presence SET offline_at = clock_timestamp() WHERE offline_at > now()"


async def online(node: Node) -> None:
    node.tracker.set_status("ann", "online")
    await node.reported()


async def test_a_user_who_returns_to_any_node_within_the_grace_stays_online(
    database: str, connection: asyncpg.Connection
) -> None:
    async with (
        running_node(database, grace_seconds=LONG) as one,
        running_node(database, grace_seconds=LONG) as other,
    ):
        client = one.connect("ann")
        await online(one)
        for node in (other, one, one):
            former = one if client in one.tracker._clients else other
            former.tracker.remove(client)
            await former.reported()
            assert await connection.fetchval(LEAVING) == 1
            client = node.connect("ann")
            await node.reported()
            await connection.execute(LET_GRACE_END)
            await becomes(lambda: connection.fetchval(LEAVING), 0)

        assert await published(connection) == [ONLINE]
        assert await connection.fetchval("SELECT status FROM brain.presence") == "online"


async def test_a_user_who_does_not_return_is_offline_once_when_the_grace_ends(
    database: str, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_node(database, grace_seconds=SHORT) as node:
        # The end of a grace is no regular report.
        monkeypatch.setattr("brain.presence.cluster.REPORT_SECONDS", 1000.0)
        client = node.connect("ann")
        await online(node)
        node.tracker.remove(client)
        await node.reported()
        await becomes(lambda: published(connection), [ONLINE, OFFLINE])
        assert await connection.fetchval("SELECT count(*) FROM brain.presence") == 0


async def test_the_grace_begins_anew_with_each_last_connection(
    database: str, connection: asyncpg.Connection
) -> None:
    async with running_node(database, grace_seconds=LONG) as node:
        ends = []
        for _ in range(2):
            client = node.connect("ann")
            await online(node)
            node.tracker.remove(client)
            await node.reported()
            ends.append(await connection.fetchval("SELECT offline_at FROM brain.presence"))

    assert ends[0] < ends[1]
    assert await published(connection) == [ONLINE]


async def test_a_user_who_states_offline_is_offline_at_once_whatever_the_grace(
    database: str, connection: asyncpg.Connection
) -> None:
    async with running_node(database, grace_seconds=LONG) as node:
        client = node.connect("ann")
        await online(node)
        node.tracker.set_status("ann", "offline")
        node.tracker.remove(client)
        await node.reported()

        assert await published(connection) == [ONLINE, OFFLINE]
        assert await connection.fetchval("SELECT count(*) FROM brain.presence") == 0


async def test_the_users_of_a_node_that_stops_have_the_grace_to_come_to_another(
    database: str, connection: asyncpg.Connection
) -> None:
    async with running_node(database, grace_seconds=LONG) as one:
        async with running_node(database, grace_seconds=LONG) as stopping:
            for user in ("ann", "bob"):
                stopping.connect(user)
                stopping.tracker.set_status(user, "online")
            await stopping.reported()
        one.connect("ann")
        await one.reported()
        assert await published(connection) == [ONLINE, ("bob", "online")]

        await connection.execute(LET_GRACE_END)
        await becomes(
            lambda: published(connection), [ONLINE, ("bob", "online"), ("bob", "offline")]
        )


@pytest.mark.parametrize("grace_seconds", [5.0, LONG])
async def test_the_grace_of_a_node_that_died_begins_with_its_last_report(
    database: str, connection: asyncpg.Connection, grace_seconds: float
) -> None:
    async with (
        running_node(database, grace_seconds=grace_seconds) as one,
        running_node(database, grace_seconds=grace_seconds) as dying,
    ):
        dying.connect("ann")
        await online(dying)
        await dying.die()
        await last_seen(connection, dying.cluster.id, 6)
        await one.reported()
        if grace_seconds == LONG:
            await becomes(lambda: connection.fetchval(LEAVING), 1)
            assert await published(connection) == [ONLINE]
            await connection.execute(LET_GRACE_END)
        await becomes(lambda: published(connection), [ONLINE, OFFLINE])


async def test_a_user_who_left_while_no_node_served_is_offline_when_one_does(
    database: str, connection: asyncpg.Connection
) -> None:
    async with running_node(database, grace_seconds=LONG) as last:
        last.connect("ann")
        await online(last)
    assert await published(connection) == [ONLINE]
    await connection.execute(LET_GRACE_END)

    async with running_node(database, grace_seconds=LONG):
        assert await published(connection) == [ONLINE, OFFLINE]
