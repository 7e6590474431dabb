"""The exact presence messages of users, also when nodes, connections or the server fail."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from contextlib import AsyncExitStack
from itertools import pairwise
from uuid import UUID, uuid4

import asyncpg
import pytest

from brain.presence.tracker import PRESENCE_STATUSES, ClientInfo
from tests.database.changes import logged_events
from tests.database.log_reading import parsed
from tests.presence.reporting import (
    PATIENCE_SECONDS,
    TERMINATE,
    Node,
    becomes,
    last_seen,
    published,
    running_node,
)
from tests.proxy import proxy_to

pytestmark = pytest.mark.postgres_versions

REPORT = "SELECT brain.report_node($1, 'a node', $2, $3, 0, 0, '{}', $4, $5, '{}')"
NO_USER = "SELECT count(*) = 0 FROM brain.presence"
CRASH = "TRUNCATE brain.nodes, brain.node_users, brain.connections, brain.crash_recovery"


async def report(
    connection: asyncpg.Connection, node: UUID, number: int, *changes: str, is_all: bool = False
) -> bool:
    """Report changes, each like 'ann connected'; return False if the report is rejected."""
    users, words = [], []
    for change in changes:
        user, _, word = change.partition(" ")
        users.append(user)
        words.append(word)
    is_known: bool = await connection.fetchval(REPORT, node, number, is_all, users, words)
    return is_known


async def test_a_status_is_published_for_all(database: str, connection: asyncpg.Connection) -> None:
    node = uuid4()
    await report(connection, node, 1, "ann connected", is_all=True)

    (event,) = await logged_events(
        database,
        connection,
        f"SELECT brain.report_node('{node}', '', 2, false, 1, 1, '{{}}',"
        " '{ann}', '{busy}', '{}')",
    )

    assert (event.channel, event.type, event.recipient) == ("presence", "user_presence", None)
    assert parsed(event.data) == {"userId": "ann", "status": "busy"}


async def test_statuses_are_published_in_order_and_only_if_they_change(
    database: str, connection: asyncpg.Connection
) -> None:
    async with running_node(database) as node:
        node.connect("ann")
        for status in ("online", "online", "away", "busy", "busy", "away"):
            node.tracker.set_status("ann", status)
        await node.reported()
        node.tracker.set_status("ann", "away")
        await node.reported()

        statuses = ["online", "away", "busy", "away"]
        assert await published(connection) == [("ann", status) for status in statuses]


async def test_a_user_who_states_offline_appears_so_until_another_status_and_is_not_repeated(
    database: str, connection: asyncpg.Connection
) -> None:
    async with running_node(database) as one, running_node(database) as other:
        client = one.connect("ann")
        other.connect("ann")
        other.tracker.set_status("ann", "online")
        await other.reported()
        for status in ("offline", "offline"):
            one.tracker.set_status("ann", status)
            await one.reported()
        expected = [("ann", "online"), ("ann", "offline")]
        assert await published(connection) == expected
        assert (await one.cluster.counts()).users == 1

        # What another node restates does not bring the user back.
        for node in (one, other):
            node.tracker.report_everything()
            await node.reported()
        one.tracker.remove(client)
        await one.reported()
        assert await published(connection) == expected

        other.tracker.set_status("ann", "busy")
        await other.reported()
        assert await published(connection) == [*expected, ("ann", "busy")]
    assert await published(connection) == [*expected, ("ann", "busy"), ("ann", "offline")]


async def test_a_user_who_appears_offline_is_not_published_again_when_he_leaves(
    database: str, connection: asyncpg.Connection
) -> None:
    async with running_node(database) as one:
        leaving = one.connect("ann")
        one.tracker.set_status("ann", "busy")
        one.tracker.set_status("ann", "offline")
        async with running_node(database) as dying:
            dying.connect("bob")
            dying.tracker.set_status("bob", "offline")
            await dying.reported()
            await one.reported()
            one.tracker.remove(leaving)
            await one.reported()
            await dying.die()
        await last_seen(connection, dying.cluster.id, 6)
        await becomes(lambda: connection.fetchval(NO_USER), True)

    assert by_user(await published(connection)) == {"ann": ["busy", "offline"], "bob": ["offline"]}


async def test_a_user_who_appears_offline_stays_so_when_his_node_was_taken_for_dead(
    database: str, connection: asyncpg.Connection
) -> None:
    async with running_node(database) as node, running_node(database) as other:
        node.connect("ann")
        node.tracker.set_status("ann", "busy")
        node.tracker.set_status("ann", "offline")
        await node.reported()
        await connection.execute("SELECT brain.remove_node($1)", node.cluster.id)
        assert await connection.fetchval(NO_USER)

        node.tracker.report_everything()
        await node.reported()
        other.connect("ann")
        other.tracker.set_status("ann", "away")
        await other.reported()

        assert await published(connection) == [
            ("ann", "busy"),
            ("ann", "offline"),
            ("ann", "away"),
        ]


async def test_a_user_is_offline_when_the_last_of_several_connections_has_ended(
    database: str, connection: asyncpg.Connection
) -> None:
    async with running_node(database) as one, running_node(database) as other:
        first, second = one.connect("ann"), one.connect("ann")
        third = other.connect("ann")
        one.tracker.set_status("ann", "online")
        await one.reported()
        await other.reported()
        one.tracker.remove(first)
        other.tracker.remove(third)
        other.tracker.remove(third)
        await one.reported()
        await other.reported()
        assert await published(connection) == [("ann", "online")]

        one.tracker.remove(second)
        await becomes(lambda: published(connection), [("ann", "online"), ("ann", "offline")])


async def test_a_user_who_sets_no_status_is_not_published(
    database: str, connection: asyncpg.Connection
) -> None:
    async with running_node(database) as node:
        client = node.connect("ann")
        await node.reported()
        node.tracker.remove(client)
        await node.reported()

    assert await published(connection) == []


async def test_a_user_who_connects_elsewhere_before_he_disconnects_keeps_his_status(
    database: str, connection: asyncpg.Connection
) -> None:
    async with running_node(database) as one, running_node(database) as other:
        client = one.connect("ann")
        one.tracker.set_status("ann", "busy")
        await one.reported()
        back = other.connect("ann")
        await other.reported()
        one.tracker.remove(client)
        await one.reported()
        assert await published(connection) == [("ann", "busy")]

        other.tracker.remove(back)
        await becomes(lambda: published(connection), [("ann", "busy"), ("ann", "offline")])


async def test_a_user_who_disconnects_and_reconnects_at_once_was_offline(
    database: str, connection: asyncpg.Connection
) -> None:
    async with running_node(database) as node:
        client = node.connect("ann")
        node.tracker.set_status("ann", "busy")
        node.tracker.remove(client)
        node.connect("ann")
        node.tracker.set_status("ann", "away")
        await node.reported()

        assert [status for _, status in await published(connection)] == ["busy", "offline", "away"]


async def test_the_users_of_a_node_that_ends_are_offline_at_once(
    database: str, connection: asyncpg.Connection
) -> None:
    async with running_node(database) as one:
        one.connect("ann")
        one.connect("bob")
        async with running_node(database) as other:
            other.connect("ann")
            other.connect("cid")
            for user in ("ann", "cid"):
                other.tracker.set_status(user, "online")
            await one.reported()
            await other.reported()

        assert await published(connection) == [
            ("ann", "online"),
            ("cid", "online"),
            ("cid", "offline"),
        ]
        assert (await one.cluster.counts()).users == 2


async def test_the_users_of_a_node_that_died_are_offline_unless_they_are_elsewhere(
    database: str, connection: asyncpg.Connection
) -> None:
    async with running_node(database) as one, running_node(database) as dying:
        one.connect("ann")
        for user in ("ann", "bob"):
            dying.connect(user)
            dying.tracker.set_status(user, "busy")
        await one.reported()
        await dying.reported()
        await dying.die()
        assert len(await published(connection)) == 2

        await last_seen(connection, dying.cluster.id, 6)
        await becomes(
            lambda: published(connection), [("ann", "busy"), ("bob", "busy"), ("bob", "offline")]
        )


async def test_a_death_that_several_nodes_notice_at_the_same_moment_is_published_once(
    database: str, connection: asyncpg.Connection
) -> None:
    sessions = [await asyncpg.connect(database) for _ in range(6)]
    nodes = [uuid4() for _ in sessions]
    for session, node in zip(sessions, nodes, strict=True):
        await report(session, node, 0, is_all=True)
    users = [f"user {number}" for number in range(20)]
    arrivals = [f"{user.replace(' ', '_')} connected" for user in users]
    for number in range(1, 11):
        for dead in (uuid4(), uuid4()):
            await report(
                connection,
                dead,
                1,
                *arrivals,
                *[a.replace("connected", "busy") for a in arrivals],
                is_all=True,
            )
            await last_seen(connection, dead, 6)
        await asyncio.gather(
            *(report(session, node, number) for session, node in zip(sessions, nodes, strict=True))
        )
        # A node that was skipped is left to the next report.
        await report(connection, uuid4(), 1, is_all=True)
    for session in sessions:
        await session.close()

    sequences = by_user(await published(connection))
    assert len(sequences) == len(users)
    assert all(sequence == ["busy", "offline"] * 10 for sequence in sequences.values())


@pytest.mark.one_version
async def test_the_users_of_a_node_that_was_taken_for_dead_are_published_again_and_once(
    database: str, connection: asyncpg.Connection
) -> None:
    async with proxy_to(database) as (url, proxy), AsyncExitStack() as stack:
        one = await stack.enter_async_context(running_node(database))
        cut_off = await stack.enter_async_context(running_node(url))
        for user in ("ann", "bob"):
            cut_off.connect(user)
            cut_off.tracker.set_status(user, "online")
            cut_off.tracker.set_status(user, "busy")
        await one.reported()
        await cut_off.reported()
        proxy.swallow()
        await last_seen(connection, cut_off.cluster.id, 6)
        first = [(user, status) for user in ("ann", "bob") for status in ("online", "busy")]
        dead = [("ann", "offline"), ("bob", "offline")]
        await becomes(lambda: published_sorted(connection, 4), [*first, *dead])
        cut_off.tracker.set_status("bob", "away")

        proxy.restore()
        again = [("ann", "busy"), ("bob", "away")]
        await becomes(lambda: published_sorted(connection, 4, 6), [*first, *dead, *again])
        await one.reported()
        await cut_off.reported()
        assert len(await published(connection)) == 8


async def test_a_report_over_an_abandoned_connection_changes_nothing(
    database: str, connection: asyncpg.Connection
) -> None:
    node = uuid4()
    await report(connection, node, 1, "ann connected", "ann busy", is_all=True)
    await report(connection, node, 3, "ann connected", "ann restated busy", is_all=True)

    assert not await report(connection, node, 2, "ann disconnected")
    assert not await report(connection, node, 2, is_all=True)
    assert not await report(connection, node, 3, "ann away")

    assert await published(connection) == [("ann", "busy")]


@pytest.mark.one_version
async def test_a_link_that_swallows_reports_changes_nothing_in_the_end(
    database: str, connection: asyncpg.Connection
) -> None:
    """The swallowed reports arrive over the old connection after the new one is in use."""
    async with proxy_to(database) as (url, proxy), running_node(url, timeout_seconds=0.5) as node:
        client = node.connect("ann")
        node.tracker.set_status("ann", "busy")
        await node.reported()
        proxy.swallow()
        node.tracker.remove(client)
        await asyncio.sleep(0.7)
        node.connect("ann")
        node.tracker.set_status("ann", "busy")
        proxy.restore()
        await node.reported()

        statuses = [status for _, status in await published(connection)]
        assert statuses in (["busy"], ["busy", "offline", "busy"])
        assert await connection.fetchval("SELECT status FROM brain.presence") == "busy"


@pytest.mark.one_version
async def test_after_a_lost_connection_only_what_is_new_is_published(
    database: str, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brain.presence.cluster.RETRY_SECONDS", 0.5)
    async with running_node(database) as one, running_node(database) as other:
        for user in ("ann", "bob", "cid"):
            gone = one.connect(user)
            one.tracker.set_status(user, "online")
        await one.reported()
        other.connect("ann")
        other.tracker.set_status("ann", "away")
        await other.reported()
        before = await published(connection)

        await connection.execute(TERMINATE)
        one.tracker.set_status("bob", "busy")
        one.tracker.remove(gone)
        await asyncio.sleep(0.1)
        await one.reported()
        await other.reported()

        assert sorted((await published(connection))[len(before) :]) == [
            ("bob", "busy"),
            ("cid", "offline"),
        ]


async def test_a_crash_of_the_server_publishes_nothing_twice_and_leaves_no_user_online(
    database: str, connection: asyncpg.Connection
) -> None:
    """Unlogged tables are empty afterwards, and connections are lost."""
    async with running_node(database) as one, running_node(database) as dying:
        one.connect("ann")
        one.tracker.set_status("ann", "busy")
        dying.connect("bob")
        dying.tracker.set_status("bob", "away")
        await one.reported()
        await dying.reported()
        before = await published(connection)
        await dying.die()

        await connection.execute(f"{CRASH}; {TERMINATE}")
        await becomes(lambda: connection.fetchval("SELECT count(*) FROM brain.node_users"), 1)
        await one.reported()
        assert await published(connection) == before

        await connection.execute("UPDATE brain.crash_recovery SET since = since - interval '16 s'")
        await becomes(lambda: published(connection), [*before, ("bob", "offline")])
        assert await connection.fetchval("SELECT is_over FROM brain.crash_recovery")


async def test_only_the_published_statuses_survive_a_crash_of_the_server(
    connection: asyncpg.Connection,
) -> None:
    logged = await connection.fetch(
        "SELECT relname FROM pg_class WHERE relkind = 'r' AND relpersistence = 'p'"
        "   AND relnamespace = 'brain'::regnamespace AND relname = ANY ($1) ORDER BY relname",
        ["nodes", "node_users", "connections", "crash_recovery", "presence"],
    )

    assert [row["relname"] for row in logged] == ["presence"]


async def test_the_users_of_a_large_node_that_died_are_published_in_parts_and_each_once(
    connection: asyncpg.Connection,
) -> None:
    dead, alive = uuid4(), uuid4()
    await report(connection, dead, 1, is_all=True)
    await report(connection, alive, 1, is_all=True)
    await connection.execute(
        "INSERT INTO brain.node_users SELECT $1, n::text FROM generate_series(1, 12000) n", dead
    )
    await connection.execute(
        "INSERT INTO brain.presence SELECT user_id, 'busy' FROM brain.node_users"
    )
    await last_seen(connection, dead, 6)

    published_after = []
    for number in range(2, 6):
        await report(connection, alive, number)
        published_after.append(len(await published(connection)))
    assert published_after == [5000, 10000, 12000, 12000]
    assert len(set(await published(connection))) == 12000
    assert await connection.fetchval("SELECT array_agg(id) FROM brain.nodes") == [alive]


async def test_a_large_node_that_comes_back_while_it_is_being_expired_has_to_report_everything(
    connection: asyncpg.Connection,
) -> None:
    back, alive = uuid4(), uuid4()
    users = [str(number) for number in range(6000)]
    for node in (back, alive):
        await report(connection, node, 1, is_all=True)
    await connection.execute(
        "INSERT INTO brain.node_users SELECT $1, unnest($2::text[])", back, users
    )
    await last_seen(connection, back, 6)
    await report(connection, alive, 2)

    assert not await report(connection, back, 2, "0 disconnected")
    here = [f"{user} connected" for user in users]
    assert await report(connection, back, 3, *here, is_all=True)
    assert await report(connection, alive, 3)
    assert await connection.fetchval("SELECT count(*) FROM brain.node_users") == 6000


async def test_no_node_waits_for_one_that_expires_dead_nodes(
    database: str, connection: asyncpg.Connection
) -> None:
    dead, alive = uuid4(), uuid4()
    await report(connection, dead, 1, "ann connected", "ann busy", is_all=True)
    await report(connection, alive, 1, "bob connected", is_all=True)
    await last_seen(connection, dead, 6)
    other = await asyncpg.connect(database)
    async with other.transaction():
        await other.execute("SELECT FROM brain.nodes WHERE id = $1 FOR UPDATE", dead)

        await connection.execute("SET lock_timeout = '100ms'")
        assert await report(connection, alive, 2, "bob busy")
        assert await published(connection) == [("ann", "busy"), ("bob", "busy")]
    await other.close()

    await report(connection, alive, 3)
    assert (await published(connection))[2:] == [("ann", "offline")]


async def test_two_nodes_that_a_user_leaves_at_once_do_not_rely_on_each_other(
    database: str, connection: asyncpg.Connection
) -> None:
    """Each could still find the user at the other. Here both look before one commits."""
    one, other = uuid4(), uuid4()
    await report(connection, one, 1, "ann connected", "ann busy", is_all=True)
    await report(connection, other, 1, "ann connected", is_all=True)
    second = await asyncpg.connect(database)
    async with connection.transaction():
        await report(connection, one, 2, "ann disconnected")
        leaving = asyncio.create_task(report(second, other, 2, "ann disconnected"))
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not await connection.fetchval(
                "SELECT cardinality(pg_blocking_pids($1)) > 0", second.get_server_pid()
            ):
                await asyncio.sleep(0)
    await leaving
    await second.close()

    assert await published(connection) == [("ann", "busy"), ("ann", "offline")]


def by_user(sequence: list[tuple[str, str]]) -> dict[str, list[str]]:
    sequences: dict[str, list[str]] = defaultdict(list)
    for user, status in sequence:
        sequences[user].append(status)
    return sequences


async def published_sorted(connection: asyncpg.Connection, *cuts: int) -> list[tuple[str, str]]:
    """Return the published statuses, sorted by user within the parts between `cuts`."""
    sequence = await published(connection)
    ends = [0, *cuts, len(sequence)]
    return [item for start, end in pairwise(ends) for item in sorted_stably(sequence[start:end])]


def sorted_stably(sequence: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return sorted(sequence, key=lambda item: item[0])


class Crowd:
    """Many users who connect, set a status, and disconnect, at several nodes."""

    def __init__(self, nodes: list[Node], rng: random.Random) -> None:
        self._nodes = nodes
        self._rng = rng
        self._connected: list[tuple[Node, ClientInfo]] = []

    def step(self) -> None:
        """Connect or disconnect a user, or set a status."""
        rng = self._rng
        node = rng.choice(self._nodes)
        match rng.choice(("connect", "status", "status", "disconnect")):
            case "connect":
                user = f"user {rng.randrange(30)}"
                self._connected.append((node, node.connect(user)))
            case "status" if self._connected:
                node, client = rng.choice(self._connected)
                node.tracker.set_status(str(client.user), rng.choice(PRESENCE_STATUSES))
            case "disconnect" if self._connected:
                node, client = self._connected.pop(rng.randrange(len(self._connected)))
                node.tracker.remove(client)

    def disconnect_all(self) -> None:
        for node, client in self._connected:
            node.tracker.remove(client)
        self._connected.clear()

    def users(self) -> set[str]:
        return {str(client.user) for _, client in self._connected}


@pytest.mark.one_version
@pytest.mark.parametrize("with_faults", [False, True], ids=["undisturbed", "with faults"])
async def test_each_user_of_a_crowd_is_offline_in_the_end_and_nothing_is_repeated(
    database: str,
    connection: asyncpg.Connection,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    with_faults: bool,
) -> None:
    monkeypatch.setattr("brain.presence.cluster.RETRY_SECONDS", 0.05)
    rng = random.Random(5221)
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(running_node(database)) for _ in range(3)]
        crowd = Crowd(nodes, rng)
        for number in range(3000):
            crowd.step()
            if number % 5 == 0:
                await asyncio.sleep(rng.choice((0, 0.001, 0.01)))
            if with_faults and number % 200 == 0:
                await connection.execute(TERMINATE if rng.random() < 0.3 else "SELECT")
                await last_seen(connection, rng.choice(nodes).cluster.id, 6)
        for node in nodes:
            await node.reported()
        now = {
            user: sequence[-1] for user, sequence in by_user(await published(connection)).items()
        }
        present = {
            row["user_id"]: row["status"]
            for row in await connection.fetch("SELECT user_id, status FROM brain.presence")
        }
        shown = {user: status for user, status in present.items() if status != "offline"}
        assert {user: status for user, status in now.items() if status != "offline"} == shown
        assert present.keys() <= crowd.users()
        assert with_faults or not [each for each in caplog.records if each.name != "asyncio"]

        crowd.disconnect_all()
        for node in nodes:
            await node.reported()
        await becomes(lambda: connection.fetchval(NO_USER), True)
        sequences = by_user(await published(connection))

    assert sum(map(len, sequences.values())) > 500
    assert len(sequences) == 30
    for sequence in sequences.values():
        assert sequence[-1] == "offline"
        # A user without a status who states `offline` is published.
        assert all(former != latter or latter == "offline" for former, latter in pairwise(sequence))
