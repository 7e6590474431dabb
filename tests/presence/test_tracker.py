"""The presence tracker of one node, and the counts of all nodes together."""

from __future__ import annotations

from collections import Counter
from contextlib import AsyncExitStack
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brain.presence import tracker as tracker_module
from brain.presence.cluster import ClusterCounts
from brain.presence.tracker import (
    CONNECTED,
    DISCONNECTED,
    PRESENCE_STATUSES,
    RESTATED,
    ClientInfo,
    PresenceTracker,
    PresenceUpdate,
)
from tests.presence.reporting import TERMINATE, becomes, last_seen, running_node
from tests.proxy import proxy_to

SIZE = """
    SELECT sum(pg_relation_size(c)) FROM unnest('{brain.nodes,brain.nodes_pkey,brain.node_users,
        brain.connections,brain.crash_recovery}'::regclass[]) c
"""


def client(user: str | None = None, channels: str = "", *, is_listed: bool = False) -> ClientInfo:
    return ClientInfo(uuid4(), user, is_listed, frozenset(channels.split()))


def reported_once() -> PresenceTracker:
    """Return a tracker that has reported its whole state, without clients."""
    tracker = PresenceTracker()
    assert tracker.take_update(0) == PresenceUpdate(True, {}, [], {})
    return tracker


def test_the_names_that_clients_choose_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracker_module, "MOST_REPORTED_CHANNELS", 3)
    tracker = reported_once()
    long, longest = "x" * 256, "y" * 255
    one = client(None, f"a b {long} {longest}", is_listed=True)
    tracker.add(one)
    assert set(tracker.counts().channels) == {"a", "b", longest}
    update = tracker.take_update(0)
    assert update.channels == {"a": 1, "b": 1, longest: 1}
    assert update.connections == {one.connection_id: frozenset({"a", "b", longest})}

    many = client(None, " ".join(["a", *(f"c{number}" for number in range(100))]))
    tracker.add(many)
    assert tracker.take_update(0).channels == {"a": 2}
    tracker.remove(one)
    update = tracker.take_update(0)  # the names that went make room
    assert update.channels == {"a": 1, "b": 0, longest: 0}
    tracker.change(many, frozenset({"a", "d", "e", "f"}))
    taken = tracker.take_update(0).channels
    assert len(taken) == 2 and set(taken) < {"d", "e", "f"}
    tracker.report_everything()
    assert len(tracker.take_update(0).channels) == 3


def test_it_counts_clients_users_and_channels() -> None:
    tracker = PresenceTracker()
    ann, again, anonymous = (
        client("ann", "news tasks"),
        client("ann", "news"),
        client(None, "tasks"),
    )
    for one in (ann, again, anonymous, client("bob")):
        tracker.add(one)
    assert tracker.counts() == (4, 3, 2, {"news": 2, "tasks": 2})

    tracker.change(again, frozenset({"tasks"}))
    tracker.remove(anonymous)
    assert tracker.counts() == (3, 3, 2, {"news": 1, "tasks": 2})


def test_a_client_that_is_removed_twice_or_changed_afterwards_counts_once() -> None:
    tracker = PresenceTracker()
    one = client("ann", "news", is_listed=True)
    tracker.add(one)
    tracker.add(client("bob"))
    tracker.remove(one)
    tracker.remove(one)
    tracker.change(one, frozenset({"tasks"}))
    tracker.set_status("ann", "busy")

    assert tracker.counts() == (1, 1, 1, {})
    assert tracker.take_update(10).changes == [("bob", CONNECTED)]


def test_an_update_has_only_what_has_changed() -> None:
    tracker = reported_once()
    one, listed = client("ann", "news"), client(None, "news", is_listed=True)
    tracker.add(one)
    tracker.add(listed)
    tracker.set_status("ann", "busy")
    assert tracker.take_update(10) == PresenceUpdate(
        False,
        {"news": 2},
        [("ann", CONNECTED), ("ann", "busy")],
        {listed.connection_id: frozenset({"news"})},
    )
    assert not tracker.has_changed
    assert tracker.take_update(10) == PresenceUpdate(False, {}, [], {})

    tracker.add(client("ann"))
    tracker.remove(one)
    tracker.remove(listed)
    assert tracker.take_update(10) == PresenceUpdate(
        False, {"news": 0}, [], {listed.connection_id: None}
    )


def test_changes_of_users_are_reported_in_parts_and_in_order() -> None:
    tracker = reported_once()
    for user in ("ann", "bob", "cid"):
        tracker.add(client(user))

    assert tracker.take_update(2).changes == [("ann", CONNECTED), ("bob", CONNECTED)]
    assert tracker.is_urgent
    assert tracker.take_update(2).changes == [("cid", CONNECTED)]
    assert not tracker.is_urgent


def test_only_changes_of_users_are_urgent() -> None:
    tracker = reported_once()
    calls: list[None] = []
    tracker.on_urgent = lambda: calls.append(None)
    anonymous, ann = client(None, "news", is_listed=True), client("ann")
    tracker.add(anonymous)
    tracker.change(anonymous, frozenset({"tasks"}))
    tracker.remove(anonymous)
    assert (calls, tracker.is_urgent, tracker.has_changed) == ([], False, True)

    tracker.add(ann)
    tracker.set_status("ann", "busy")
    tracker.remove(ann)
    assert len(calls) == 3


def test_the_whole_state_restates_the_statuses_that_were_reported_before() -> None:
    tracker = reported_once()
    gone = client("bob")
    for one in (client("ann"), gone, client("cid"), client("dan")):
        tracker.add(one)
    for user in ("ann", "bob", "cid"):
        tracker.set_status(user, "away")
    tracker.take_update(100)
    tracker.set_status("cid", "busy")
    lost = tracker.take_update(100)
    tracker.remove(gone)
    tracker.report_everything(lost)
    tracker.set_status("dan", "online")

    assert tracker.take_update(100).changes == [
        *[("ann", CONNECTED), ("cid", CONNECTED), ("dan", CONNECTED)],
        *[("ann", RESTATED + "away"), ("cid", "busy"), ("dan", "online")],
    ]


def test_the_whole_state_is_reported_if_too_many_changes_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("brain.presence.tracker.MOST_CHANGES", 10)
    tracker = reported_once()
    tracker.add(client("ann"))
    for number in range(10_000):
        tracker.set_status("ann", PRESENCE_STATUSES[number % 3])

    update = tracker.take_update(100)
    assert update.is_all
    assert update.changes == [("ann", CONNECTED), ("ann", "online")]


@pytest.mark.parametrize("name", ["a\0b", "a\ud800b"], ids=["NUL", "half a character"])
def test_names_that_the_database_cannot_hold_keep_nothing_else_from_being_reported(
    name: str,
) -> None:
    tracker = reported_once()
    odd = ClientInfo(uuid4(), name, False, frozenset({name, "news"}))
    tracker.add(odd)
    tracker.set_status(name, "busy")
    assert tracker.counts() == (1, 1, 0, {"news": 1})
    assert tracker.take_update(10) == PresenceUpdate(False, {"news": 1}, [], {})

    tracker.remove(odd)
    assert tracker.counts() == (0, 0, 0, {})


def test_a_user_whose_name_is_too_long_for_an_index_is_a_client_without_one() -> None:
    tracker = reported_once()
    tracker.add(client("x" * 256))

    assert tracker.counts() == (1, 1, 0, {})
    assert tracker.take_update(10).changes == []


def test_no_other_status_can_be_set() -> None:
    tracker = PresenceTracker()
    tracker.add(client("ann"))

    with pytest.raises(ValueError, match="online, away, busy, offline, not 'gone'"):
        tracker.set_status("ann", "gone")


class Receiver:
    """Applies the updates of a tracker, and keeps the resulting state."""

    def __init__(self) -> None:
        self.users: set[str] = set()
        self.statuses: dict[str, str] = {}
        self.channels: Counter[str] = Counter()
        self.connections: dict[UUID, frozenset[str]] = {}

    def apply(self, update: PresenceUpdate) -> None:
        if update.is_all:
            connected = {user for user, change in update.changes if change == CONNECTED}
            for user in self.users - connected:
                self.statuses.pop(user, None)
            self.users.clear()
            self.channels.clear()
            self.connections.clear()
        self.channels.update(dict.fromkeys(update.channels, 0))
        for channel, clients in update.channels.items():
            self.channels[channel] = clients
        for id, channels in update.connections.items():
            if channels is None:
                self.connections.pop(id, None)
            else:
                self.connections[id] = channels
        for user, change in update.changes:
            self._apply_change(user, change)

    def _apply_change(self, user: str, change: str) -> None:
        if change == CONNECTED:
            self.users.add(user)
        elif change == DISCONNECTED:
            self.users.remove(user)
            self.statuses.pop(user, None)
        else:
            assert user in self.users
            if change.startswith(RESTATED):
                self.statuses.setdefault(user, change.removeprefix(RESTATED))
            else:
                self.statuses[user] = change


class World:
    """A tracker, a receiver of its updates, and the true state."""

    def __init__(self) -> None:
        self.tracker = PresenceTracker()
        self.receiver = Receiver()
        self.clients: list[ClientInfo] = []
        self.statuses: dict[str, str] = {}

    @property
    def users(self) -> set[str]:
        return {client.user for client in self.clients if client.user}

    def connect(self, user: str | None, channels: frozenset[str], is_listed: bool) -> None:
        self.clients.append(ClientInfo(uuid4(), user, is_listed, channels))
        self.tracker.add(self.clients[-1])

    def disconnect(self, number: int) -> None:
        if number < len(self.clients):
            self.tracker.remove(self.clients.pop(number))
            for user in self.statuses.keys() - self.users:
                del self.statuses[user]

    def change(self, number: int, channels: frozenset[str]) -> None:
        if number < len(self.clients):
            self.tracker.change(self.clients[number], channels)

    def set_status(self, user: str, status: str) -> None:
        self.tracker.set_status(user, status)
        if user in self.users:
            self.statuses[user] = status

    def report(self, most: int) -> None:
        self.receiver.apply(self.tracker.take_update(most))

    def report_and_lose_the_reply(self, most: int, has_arrived: bool) -> None:
        update = self.tracker.take_update(most)
        if has_arrived:
            self.receiver.apply(update)
        self.tracker.report_everything(update)


USERS = st.sampled_from([None, "ann", "bob"])
CHANNELS = st.frozensets(st.sampled_from(["news", "tasks"]))
NUMBERS = st.integers(0, 5)
STEPS = st.one_of(
    st.tuples(st.just(World.connect), USERS, CHANNELS, st.booleans()),
    st.tuples(st.just(World.disconnect), NUMBERS),
    st.tuples(st.just(World.change), NUMBERS, CHANNELS),
    st.tuples(
        st.just(World.set_status),
        st.sampled_from(["ann", "bob"]),
        st.sampled_from(PRESENCE_STATUSES),
    ),
    st.tuples(st.just(World.report), st.integers(1, 3)),
    st.tuples(st.just(World.report_and_lose_the_reply), st.integers(1, 3), st.booleans()),
)


@given(st.lists(STEPS, max_size=40))
def test_the_receiver_of_all_updates_has_the_state_in_the_end_whatever_gets_lost(
    steps: list[tuple[Any, ...]],
) -> None:
    world = World()
    for step, *arguments in steps:
        step(world, *arguments)
    while world.tracker.has_changed:
        world.report(2)

    receiver, clients = world.receiver, world.clients
    assert receiver.users == world.users
    assert +receiver.channels == Counter(name for one in clients for name in one.channels)
    assert receiver.connections == {c.connection_id: c.channels for c in clients if c.is_listed}
    # A user who reconnects before the disconnection is reported keeps the reported status.
    assert world.statuses.items() <= receiver.statuses.items()
    assert receiver.statuses.keys() <= receiver.users


@pytest.mark.postgres_versions
async def test_every_node_counts_the_clients_users_and_channels_of_all(database: str) -> None:
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(running_node(database)) for _ in range(3)]
        leaving = []
        for number, node in enumerate(nodes):
            node.connect(None, "news")
            node.connect("ann", "news tasks")
            leaving.append(node.connect(f"user {number}", f"{number}"))
        expected = ClusterCounts(9, 6, 4, {"news": 6, "tasks": 3, "0": 1, "1": 1, "2": 1})
        for node in nodes:
            await becomes(node.cluster.counts, expected)

        for node, client in zip(nodes, leaving, strict=True):
            node.tracker.remove(client)
        for node in nodes:
            await becomes(node.cluster.counts, ClusterCounts(6, 3, 1, {"news": 6, "tasks": 3}))

        await nodes[0].end()
        await becomes(nodes[1].cluster.counts, ClusterCounts(4, 2, 1, {"news": 4, "tasks": 2}))


async def test_the_result_has_the_own_clients_of_a_node_at_once(database: str) -> None:
    async with running_node(database) as node:
        for clients in range(1, 30):
            node.connect(None, "news", is_listed=True)
            assert (await node.cluster.counts()).clients == clients
            count, ids = await node.cluster.subscribers("news")
            assert (count, len(ids)) == (clients, clients)


@pytest.mark.postgres_versions
async def test_the_subscribers_of_a_channel_are_counted_and_those_listed_that_may_be(
    database: str,
) -> None:
    async with running_node(database) as one, running_node(database) as other:
        first = one.connect("ann", "news tasks", is_listed=True)
        one.connect("ann", "news")
        second = other.connect(None, "news", is_listed=True)
        ids = sorted((first.connection_id, second.connection_id))
        for node in (one, other):
            await becomes(partial(node.cluster.subscribers, "news"), (3, ids))
            assert await node.cluster.subscribers("nothing") == (0, [])
            assert await node.cluster.subscribers("a\0b") == (0, [])

        other.tracker.change(second, frozenset({"tasks"}))
        one.tracker.remove(first)
        await becomes(lambda: one.cluster.subscribers("news"), (1, []))
        await becomes(lambda: one.cluster.subscribers("tasks"), (1, [second.connection_id]))


async def test_no_client_of_a_node_that_has_not_reported_for_a_while_counts(
    database: str, connection: asyncpg.Connection
) -> None:
    async with running_node(database) as one, running_node(database) as dying:
        dying.connect("ann", "news", is_listed=True)
        await dying.reported()
        await one.reported()
        await dying.die()
        counted = "SELECT e::text FROM brain.cluster_counts() e"
        assert await connection.fetchval(counted) == '(1,1,1,"{""news"": 1}")'

        await last_seen(connection, dying.cluster.id, 6)
        assert await connection.fetchval(counted) == "(0,0,0,{})"
        assert await connection.fetchval("SELECT s::text FROM brain.subscribers('news') s") == (
            "(0,{})"
        )
        await becomes(lambda: connection.fetchval("SELECT count(*) FROM brain.connections"), 0)


async def test_a_node_that_lost_its_connection_reports_everything(
    database: str, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brain.presence.cluster.RETRY_SECONDS", 0.2)
    async with running_node(database) as one, running_node(database) as other:
        first = one.connect("ann", "news", is_listed=True)
        one.connect("bob", "tasks", is_listed=True)
        await one.reported()
        for fault in ("", TERMINATE):
            await connection.execute(f"TRUNCATE brain.nodes; {fault}")
            one.tracker.remove(first)
            await becomes(other.cluster.counts, ClusterCounts(1, 1, 1, {"tasks": 1}))
            assert len((await other.cluster.subscribers("tasks"))[1]) == 1


async def test_a_node_that_lost_its_connection_during_a_query_reports_everything(
    database: str, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next connection may reach another server."""
    monkeypatch.setattr("brain.presence.cluster.REPORT_SECONDS", 1000.0)
    monkeypatch.setattr("brain.presence.cluster.RETRY_SECONDS", 0.2)
    async with running_node(database) as node:
        node.connect("ann", "news", is_listed=True)
        await node.reported()
        await connection.execute(f"TRUNCATE brain.node_users, brain.connections; {TERMINATE}")

        await node.cluster.counts()
        users = "SELECT array_agg(user_id) FROM brain.node_users"
        await becomes(lambda: connection.fetchval(users), ["ann"])
        assert await connection.fetchval("SELECT count(*) FROM brain.connections") == 1


async def test_without_the_database_a_node_has_its_own_numbers(database: str) -> None:
    async with proxy_to(database) as (url, proxy), running_node(url) as node:
        client = node.connect("ann", "news", is_listed=True)
        await node.reported()
        proxy.swallow()

        assert await node.cluster.counts() == ClusterCounts(1, 1, 1, {"news": 1})
        assert await node.cluster.subscribers("news") == (1, [client.connection_id])
        proxy.restore()


async def test_beyond_the_limit_of_waiting_queries_a_node_has_its_own_numbers(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_node(database) as one, running_node(database) as node:
        one.connect(None, "news")
        await one.reported()
        node.connect(None, "news")
        assert await node.cluster.subscribers("news") == (2, [])

        monkeypatch.setattr("brain.presence.cluster.MOST_WAITING_QUERIES", 0)
        assert await node.cluster.subscribers("news") == (1, [])


async def test_reports_leave_no_garbage_that_stays(connection: asyncpg.Connection) -> None:
    """Repeated updates of one row reuse its space at once (HOT), without autovacuum."""
    report = (
        "SELECT brain.report_node("
        "$1, 'a host of ordinary length', $2, $3, $4, 0, $5, '{}', '{}', '{}')"
    )
    node = uuid4()
    channels = '{"news": %d, "tasks": %d}'
    await connection.execute(report, node, 0, True, 0, channels % (1, 1))
    at_first: int = await connection.fetchval(SIZE)

    for number in range(1, 2000):
        await connection.execute(report, node, number, False, number, channels % (number, number))

    assert await connection.fetchval(SIZE) <= at_first + 8192
