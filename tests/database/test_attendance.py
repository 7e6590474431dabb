"""Who is here: the record of one process, and what all processes say together."""

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

from brain.database.attendance import GONE, HERE, STATUSES, STILL, Attendance, Telling, Visit
from brain.database.nodes import Everywhere
from tests.database.attending import TERMINATE, attending, becomes, last_seen
from tests.proxy import proxy_to

SIZE = """
    SELECT sum(pg_relation_size(c)) FROM unnest('{brain.nodes,brain.nodes_pkey,brain.node_users,
        brain.connections,brain.roll_call}'::regclass[]) c
"""


def visit(user: str | None = None, channels: str = "", *, is_listed: bool = False) -> Visit:
    return Visit(uuid4(), user, is_listed, frozenset(channels.split()))


def told_once() -> Attendance:
    """Return one of which all is known: that nobody is here."""
    attendance = Attendance()
    assert attendance.take(0) == Telling(True, {}, [], {})
    return attendance


def test_it_counts_clients_users_and_channels() -> None:
    attendance = Attendance()
    ann, again, stranger = visit("ann", "news tasks"), visit("ann", "news"), visit(None, "tasks")
    for one in (ann, again, stranger, visit("bob")):
        attendance.arrive(one)
    assert attendance.counts() == (4, 3, 2, {"news": 2, "tasks": 2})

    attendance.change(again, frozenset({"tasks"}))
    attendance.leave(stranger)
    assert attendance.counts() == (3, 3, 2, {"news": 1, "tasks": 2})


def test_who_leaves_twice_or_changes_afterwards_counts_once() -> None:
    attendance = Attendance()
    one = visit("ann", "news", is_listed=True)
    attendance.arrive(one)
    attendance.arrive(visit("bob"))
    attendance.leave(one)
    attendance.leave(one)
    attendance.change(one, frozenset({"tasks"}))
    attendance.state("ann", "busy")

    assert attendance.counts() == (1, 1, 1, {})
    assert attendance.take(10).acts == [("bob", HERE)]


def test_only_what_has_changed_is_taken() -> None:
    attendance = told_once()
    one, listed = visit("ann", "news"), visit(None, "news", is_listed=True)
    attendance.arrive(one)
    attendance.arrive(listed)
    attendance.state("ann", "busy")
    assert attendance.take(10) == Telling(
        False,
        {"news": 2},
        [("ann", HERE), ("ann", "busy")],
        {listed.connection_id: frozenset({"news"})},
    )
    assert not attendance.has_changed
    assert attendance.take(10) == Telling(False, {}, [], {})

    attendance.arrive(visit("ann"))
    attendance.leave(one)
    attendance.leave(listed)
    assert attendance.take(10) == Telling(False, {"news": 0}, [], {listed.connection_id: None})


def test_what_users_did_is_taken_in_parts_and_in_order() -> None:
    attendance = told_once()
    for user in ("ann", "bob", "cid"):
        attendance.arrive(visit(user))

    assert attendance.take(2).acts == [("ann", HERE), ("bob", HERE)]
    assert attendance.is_urgent
    assert attendance.take(2).acts == [("cid", HERE)]
    assert not attendance.is_urgent


def test_it_calls_for_who_tells_when_users_come_state_and_go_and_only_then() -> None:
    attendance = told_once()
    calls: list[None] = []
    attendance.when_urgent = lambda: calls.append(None)
    stranger, ann = visit(None, "news", is_listed=True), visit("ann")
    attendance.arrive(stranger)
    attendance.change(stranger, frozenset({"tasks"}))
    attendance.leave(stranger)
    assert (calls, attendance.is_urgent, attendance.has_changed) == ([], False, True)

    attendance.arrive(ann)
    attendance.state("ann", "busy")
    attendance.leave(ann)
    assert len(calls) == 3


def test_anew_it_tells_who_is_here_and_what_was_heard_of_them_before_only_as_such() -> None:
    attendance = told_once()
    gone = visit("bob")
    for one in (visit("ann"), gone, visit("cid"), visit("dan")):
        attendance.arrive(one)
    for user in ("ann", "bob", "cid"):
        attendance.state(user, "away")
    attendance.take(100)
    attendance.state("cid", "busy")
    lost = attendance.take(100)
    attendance.leave(gone)
    attendance.begin_anew(lost)
    attendance.state("dan", "online")

    assert attendance.take(100).acts == [
        *[("ann", HERE), ("cid", HERE), ("dan", HERE)],
        *[("ann", STILL + "away"), ("cid", "busy"), ("dan", "online")],
    ]


def test_what_waits_too_long_to_be_told_is_told_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("brain.database.attendance.MOST_ACTS", 10)
    attendance = told_once()
    attendance.arrive(visit("ann"))
    for number in range(10_000):
        attendance.state("ann", STATUSES[number % 3])

    telling = attendance.take(100)
    assert telling.is_all
    assert telling.acts == [("ann", HERE), ("ann", "online")]


@pytest.mark.parametrize("name", ["a\0b", "a\ud800b"], ids=["NUL", "half a character"])
def test_names_that_the_database_cannot_hold_keep_nothing_else_from_being_told(name: str) -> None:
    attendance = told_once()
    odd = Visit(uuid4(), name, False, frozenset({name, "news"}))
    attendance.arrive(odd)
    attendance.state(name, "busy")
    assert attendance.counts() == (1, 1, 0, {"news": 1})
    assert attendance.take(10) == Telling(False, {"news": 1}, [], {})

    attendance.leave(odd)
    assert attendance.counts() == (0, 0, 0, {})


def test_a_user_whose_name_is_too_long_for_an_index_is_a_client_without_one() -> None:
    attendance = told_once()
    attendance.arrive(visit("x" * 256))

    assert attendance.counts() == (1, 1, 0, {})
    assert attendance.take(10).acts == []


def test_no_other_status_can_be_stated() -> None:
    attendance = Attendance()
    attendance.arrive(visit("ann"))

    with pytest.raises(ValueError, match="online, away, busy, not 'offline'"):
        attendance.state("ann", "offline")


class Listener:
    """Knows of an attendance what it was told."""

    def __init__(self) -> None:
        self.users: set[str] = set()
        self.statuses: dict[str, str] = {}
        self.channels: Counter[str] = Counter()
        self.connections: dict[UUID, frozenset[str]] = {}

    def hear(self, telling: Telling) -> None:
        if telling.is_all:
            here = {user for user, act in telling.acts if act == HERE}
            for user in self.users - here:
                self.statuses.pop(user, None)
            self.users.clear()
            self.channels.clear()
            self.connections.clear()
        self.channels.update(dict.fromkeys(telling.channels, 0))
        for channel, clients in telling.channels.items():
            self.channels[channel] = clients
        for id, channels in telling.connections.items():
            if channels is None:
                self.connections.pop(id, None)
            else:
                self.connections[id] = channels
        for user, act in telling.acts:
            self._follow(user, act)

    def _follow(self, user: str, act: str) -> None:
        if act == HERE:
            self.users.add(user)
        elif act == GONE:
            self.users.remove(user)
            self.statuses.pop(user, None)
        else:
            assert user in self.users
            if act.startswith(STILL):
                self.statuses.setdefault(user, act.removeprefix(STILL))
            else:
                self.statuses[user] = act


class World:
    """What happens to an attendance, and what is so."""

    def __init__(self) -> None:
        self.attendance = Attendance()
        self.listener = Listener()
        self.visits: list[Visit] = []
        self.statuses: dict[str, str] = {}

    @property
    def users(self) -> set[str]:
        return {visit.user for visit in self.visits if visit.user}

    def arrive(self, user: str | None, channels: frozenset[str], is_listed: bool) -> None:
        self.visits.append(Visit(uuid4(), user, is_listed, channels))
        self.attendance.arrive(self.visits[-1])

    def leave(self, number: int) -> None:
        if number < len(self.visits):
            self.attendance.leave(self.visits.pop(number))
            for user in self.statuses.keys() - self.users:
                del self.statuses[user]

    def change(self, number: int, channels: frozenset[str]) -> None:
        if number < len(self.visits):
            self.attendance.change(self.visits[number], channels)

    def state(self, user: str, status: str) -> None:
        self.attendance.state(user, status)
        if user in self.users:
            self.statuses[user] = status

    def tell(self, most: int) -> None:
        self.listener.hear(self.attendance.take(most))

    def tell_and_never_know(self, most: int, is_heard: bool) -> None:
        telling = self.attendance.take(most)
        if is_heard:
            self.listener.hear(telling)
        self.attendance.begin_anew(telling)


USERS = st.sampled_from([None, "ann", "bob"])
CHANNELS = st.frozensets(st.sampled_from(["news", "tasks"]))
NUMBERS = st.integers(0, 5)
STEPS = st.one_of(
    st.tuples(st.just(World.arrive), USERS, CHANNELS, st.booleans()),
    st.tuples(st.just(World.leave), NUMBERS),
    st.tuples(st.just(World.change), NUMBERS, CHANNELS),
    st.tuples(st.just(World.state), st.sampled_from(["ann", "bob"]), st.sampled_from(STATUSES)),
    st.tuples(st.just(World.tell), st.integers(1, 3)),
    st.tuples(st.just(World.tell_and_never_know), st.integers(1, 3), st.booleans()),
)


@given(st.lists(STEPS, max_size=40))
def test_whatever_happens_and_gets_lost_who_is_told_knows_it_in_the_end(
    steps: list[tuple[Any, ...]],
) -> None:
    world = World()
    for step, *arguments in steps:
        step(world, *arguments)
    while world.attendance.has_changed:
        world.tell(2)

    listener, visits = world.listener, world.visits
    assert listener.users == world.users
    assert +listener.channels == Counter(name for one in visits for name in one.channels)
    assert listener.connections == {v.connection_id: v.channels for v in visits if v.is_listed}
    # Who came back before anybody heard that he was gone keeps what was heard of him.
    assert world.statuses.items() <= listener.statuses.items()
    assert listener.statuses.keys() <= listener.users


async def test_every_process_counts_who_is_connected_anywhere(database: str) -> None:
    async with AsyncExitStack() as stack:
        processes = [await stack.enter_async_context(attending(database)) for _ in range(3)]
        leaving = []
        for number, process in enumerate(processes):
            process.welcome(None, "news")
            process.welcome("ann", "news tasks")
            leaving.append(process.welcome(f"user {number}", f"{number}"))
        expected = Everywhere(9, 6, 4, {"news": 6, "tasks": 3, "0": 1, "1": 1, "2": 1})
        for process in processes:
            await becomes(process.nodes.everywhere, expected)

        for process, visit in zip(processes, leaving, strict=True):
            process.attendance.leave(visit)
        for process in processes:
            await becomes(process.nodes.everywhere, Everywhere(6, 3, 1, {"news": 6, "tasks": 3}))

        await processes[0].end()
        await becomes(processes[1].nodes.everywhere, Everywhere(4, 2, 1, {"news": 4, "tasks": 2}))


async def test_what_a_process_knows_itself_is_in_its_answer_at_once(database: str) -> None:
    async with attending(database) as process:
        for clients in range(1, 30):
            process.welcome(None, "news", is_listed=True)
            assert (await process.nodes.everywhere()).clients == clients
            count, ids = await process.nodes.subscribers("news")
            assert (count, len(ids)) == (clients, clients)


async def test_the_subscribers_of_a_channel_are_counted_and_those_listed_that_may_be(
    database: str,
) -> None:
    async with attending(database) as one, attending(database) as other:
        first = one.welcome("ann", "news tasks", is_listed=True)
        one.welcome("ann", "news")
        second = other.welcome(None, "news", is_listed=True)
        ids = sorted((first.connection_id, second.connection_id))
        for process in (one, other):
            await becomes(partial(process.nodes.subscribers, "news"), (3, ids))
            assert await process.nodes.subscribers("nothing") == (0, [])
            assert await process.nodes.subscribers("a\0b") == (0, [])

        other.attendance.change(second, frozenset({"tasks"}))
        one.attendance.leave(first)
        await becomes(lambda: one.nodes.subscribers("news"), (1, []))
        await becomes(lambda: one.nodes.subscribers("tasks"), (1, [second.connection_id]))


async def test_of_a_process_that_was_not_seen_for_a_while_nobody_counts(
    database: str, connection: asyncpg.Connection
) -> None:
    async with attending(database) as one, attending(database) as dying:
        dying.welcome("ann", "news", is_listed=True)
        await dying.known()
        await one.known()
        await dying.die()
        counted = "SELECT e::text FROM brain.everywhere() e"
        assert await connection.fetchval(counted) == '(1,1,1,"{""news"": 1}")'

        await last_seen(connection, dying.nodes.id, 6)
        assert await connection.fetchval(counted) == "(0,0,0,{})"
        assert await connection.fetchval("SELECT s::text FROM brain.subscribers('news') s") == (
            "(0,{})"
        )
        await becomes(lambda: connection.fetchval("SELECT count(*) FROM brain.connections"), 0)


async def test_a_process_that_lost_its_connection_tells_all_anew(
    database: str, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brain.database.nodes.RETRY_SECONDS", 0.2)
    async with attending(database) as one, attending(database) as other:
        first = one.welcome("ann", "news", is_listed=True)
        one.welcome("bob", "tasks", is_listed=True)
        await one.known()
        for harm in ("", TERMINATE):
            await connection.execute(f"TRUNCATE brain.nodes; {harm}")
            one.attendance.leave(first)
            await becomes(other.nodes.everywhere, Everywhere(1, 1, 1, {"tasks": 1}))
            assert len((await other.nodes.subscribers("tasks"))[1]) == 1


async def test_a_connection_that_was_lost_over_a_question_has_all_told_anew(
    database: str, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There may be another server behind the next one."""
    monkeypatch.setattr("brain.database.nodes.BEAT_SECONDS", 1000.0)
    monkeypatch.setattr("brain.database.nodes.RETRY_SECONDS", 0.2)
    async with attending(database) as process:
        process.welcome("ann", "news", is_listed=True)
        await process.known()
        await connection.execute(f"TRUNCATE brain.node_users, brain.connections; {TERMINATE}")

        await process.nodes.everywhere()
        users = "SELECT array_agg(user_id) FROM brain.node_users"
        await becomes(lambda: connection.fetchval(users), ["ann"])
        assert await connection.fetchval("SELECT count(*) FROM brain.connections") == 1


async def test_without_the_database_a_process_answers_for_itself(database: str) -> None:
    async with proxy_to(database) as (url, proxy), attending(url) as process:
        visit = process.welcome("ann", "news", is_listed=True)
        await process.known()
        proxy.swallow()

        assert await process.nodes.everywhere() == Everywhere(1, 1, 1, {"news": 1})
        assert await process.nodes.subscribers("news") == (1, [visit.connection_id])
        proxy.restore()


async def test_those_who_ask_for_more_than_is_answered_are_told_what_this_process_knows(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with attending(database) as one, attending(database) as process:
        one.welcome(None, "news")
        await one.known()
        process.welcome(None, "news")
        assert await process.nodes.subscribers("news") == (2, [])

        monkeypatch.setattr("brain.database.nodes.MOST_QUESTIONS", 0)
        assert await process.nodes.subscribers("news") == (1, [])


async def test_telling_leaves_no_garbage_that_stays(connection: asyncpg.Connection) -> None:
    """What autovacuum does later is done at once where it is always the same row."""
    tell = (
        "SELECT brain.attend($1, 'a host of ordinary length', $2, $3, $4, 0, $5, '{}', '{}', '{}')"
    )
    node = uuid4()
    channels = '{"news": %d, "tasks": %d}'
    await connection.execute(tell, node, 0, True, 0, channels % (1, 1))
    at_first: int = await connection.fetchval(SIZE)

    for number in range(1, 2000):
        await connection.execute(tell, node, number, False, number, channels % (number, number))

    assert await connection.fetchval(SIZE) <= at_first + 8192
