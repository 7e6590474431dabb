"""What is told of users, exactly, whatever happens to the processes that they are connected to."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from contextlib import AsyncExitStack
from itertools import pairwise
from uuid import UUID, uuid4

import asyncpg
import pytest

from brain.database.attendance import STATUSES, Visit
from tests.database.attending import (
    PATIENCE_SECONDS,
    TERMINATE,
    Process,
    attending,
    becomes,
    last_seen,
    told,
)
from tests.database.changes import logged_events
from tests.proxy import proxy_to

ATTEND = "SELECT brain.attend($1, 'a process', $2, $3, 0, 0, '{}', $4, $5, '{}')"
NOBODY = "SELECT count(*) = 0 FROM brain.presence"
CRASH = "TRUNCATE brain.nodes, brain.node_users, brain.connections, brain.roll_call"


async def attend(
    connection: asyncpg.Connection, node: UUID, news: int, *acts: str, is_all: bool = False
) -> int | None:
    """Have a process say what happened, each of `acts` as in 'ann here'; None: it is not known."""
    users, words = [], []
    for act in acts:
        user, _, word = act.partition(" ")
        users.append(user)
        words.append(word)
    elsewhere: int | None = await connection.fetchval(ATTEND, node, news, is_all, users, words)
    return elsewhere


async def test_a_statement_is_told_to_everybody(
    database: str, connection: asyncpg.Connection
) -> None:
    node = uuid4()
    await attend(connection, node, 1, "ann here", is_all=True)

    (event,) = await logged_events(
        database,
        connection,
        f"SELECT brain.attend('{node}', '', 2, false, 1, 1, '{{}}', '{{ann}}', '{{busy}}', '{{}}')",
    )

    assert (event.channel, event.type, event.audience) == ("presence", "user_presence", None)
    assert event.data == {"userId": "ann", "status": "busy"}


async def test_statements_are_told_in_order_and_none_that_says_nothing_new(
    database: str, connection: asyncpg.Connection
) -> None:
    async with attending(database) as process:
        process.welcome("ann")
        for status in ("online", "online", "away", "busy", "busy", "away"):
            process.attendance.state("ann", status)
        await process.known()
        process.attendance.state("ann", "away")
        await process.known()

        statuses = ["online", "away", "busy", "away"]
        assert await told(connection) == [("ann", status) for status in statuses]


async def test_a_user_is_offline_when_the_last_of_several_connections_has_ended(
    database: str, connection: asyncpg.Connection
) -> None:
    async with attending(database) as one, attending(database) as other:
        first, second = one.welcome("ann"), one.welcome("ann")
        third = other.welcome("ann")
        one.attendance.state("ann", "online")
        await one.known()
        await other.known()
        one.attendance.leave(first)
        other.attendance.leave(third)
        other.attendance.leave(third)
        await one.known()
        await other.known()
        assert await told(connection) == [("ann", "online")]

        one.attendance.leave(second)
        await becomes(lambda: told(connection), [("ann", "online"), ("ann", "offline")])


async def test_who_has_stated_nothing_comes_and_goes_untold(
    database: str, connection: asyncpg.Connection
) -> None:
    async with attending(database) as process:
        visit = process.welcome("ann")
        await process.known()
        process.attendance.leave(visit)
        await process.known()

    assert await told(connection) == []


async def test_who_has_come_back_elsewhere_before_he_was_gone_keeps_his_status(
    database: str, connection: asyncpg.Connection
) -> None:
    async with attending(database) as one, attending(database) as other:
        visit = one.welcome("ann")
        one.attendance.state("ann", "busy")
        await one.known()
        back = other.welcome("ann")
        await other.known()
        one.attendance.leave(visit)
        await one.known()
        assert await told(connection) == [("ann", "busy")]

        other.attendance.leave(back)
        await becomes(lambda: told(connection), [("ann", "busy"), ("ann", "offline")])


async def test_who_leaves_and_comes_back_at_once_was_offline(
    database: str, connection: asyncpg.Connection
) -> None:
    async with attending(database) as process:
        visit = process.welcome("ann")
        process.attendance.state("ann", "busy")
        process.attendance.leave(visit)
        process.welcome("ann")
        process.attendance.state("ann", "away")
        await process.known()

        assert [status for _, status in await told(connection)] == ["busy", "offline", "away"]


async def test_a_process_that_ends_says_goodbye_for_its_users_at_once(
    database: str, connection: asyncpg.Connection
) -> None:
    async with attending(database) as one:
        one.welcome("ann")
        one.welcome("bob")
        async with attending(database) as other:
            other.welcome("ann")
            other.welcome("cid")
            for user in ("ann", "cid"):
                other.attendance.state(user, "online")
            await one.known()
            await other.known()

        assert await told(connection) == [("ann", "online"), ("cid", "online"), ("cid", "offline")]
        assert (await one.nodes.everywhere()).users == 2


async def test_the_users_of_a_process_that_died_are_offline_unless_they_are_elsewhere(
    database: str, connection: asyncpg.Connection
) -> None:
    async with attending(database) as one, attending(database) as dying:
        one.welcome("ann")
        for user in ("ann", "bob"):
            dying.welcome(user)
            dying.attendance.state(user, "busy")
        await one.known()
        await dying.known()
        await dying.die()
        assert len(await told(connection)) == 2

        await last_seen(connection, dying.nodes.id, 6)
        await becomes(
            lambda: told(connection), [("ann", "busy"), ("bob", "busy"), ("bob", "offline")]
        )


async def test_a_death_that_several_notice_at_the_same_moment_is_told_once(
    database: str, connection: asyncpg.Connection
) -> None:
    sessions = [await asyncpg.connect(database) for _ in range(6)]
    nodes = [uuid4() for _ in sessions]
    for session, node in zip(sessions, nodes, strict=True):
        await attend(session, node, 0, is_all=True)
    users = [f"user {number}" for number in range(20)]
    arrivals = [f"{user.replace(' ', '_')} here" for user in users]
    for news in range(1, 11):
        for dead in (uuid4(), uuid4()):
            await attend(
                connection,
                dead,
                1,
                *arrivals,
                *[a.replace("here", "busy") for a in arrivals],
                is_all=True,
            )
            await last_seen(connection, dead, 6)
        await asyncio.gather(
            *(attend(session, node, news) for session, node in zip(sessions, nodes, strict=True))
        )
        # Who was passed over is left to the next one.
        await attend(connection, uuid4(), 1, is_all=True)
    for session in sessions:
        await session.close()

    sequences = by_user(await told(connection))
    assert len(sequences) == len(users)
    assert all(sequence == ["busy", "offline"] * 10 for sequence in sequences.values())


async def test_a_process_that_was_taken_for_dead_tells_its_users_anew_and_once(
    database: str, connection: asyncpg.Connection
) -> None:
    async with proxy_to(database) as (url, proxy), AsyncExitStack() as stack:
        one = await stack.enter_async_context(attending(database))
        cut_off = await stack.enter_async_context(attending(url))
        for user in ("ann", "bob"):
            cut_off.welcome(user)
            cut_off.attendance.state(user, "online")
            cut_off.attendance.state(user, "busy")
        await one.known()
        await cut_off.known()
        proxy.swallow()
        await last_seen(connection, cut_off.nodes.id, 6)
        first = [(user, status) for user in ("ann", "bob") for status in ("online", "busy")]
        dead = [("ann", "offline"), ("bob", "offline")]
        await becomes(lambda: told_sorted(connection, 4), [*first, *dead])
        cut_off.attendance.state("bob", "away")

        proxy.restore()
        again = [("ann", "busy"), ("bob", "away")]
        await becomes(lambda: told_sorted(connection, 4, 6), [*first, *dead, *again])
        await one.known()
        await cut_off.known()
        assert len(await told(connection)) == 8


async def test_what_arrives_over_a_connection_that_was_given_up_is_no_news(
    database: str, connection: asyncpg.Connection
) -> None:
    node = uuid4()
    await attend(connection, node, 1, "ann here", "ann busy", is_all=True)
    await attend(connection, node, 3, "ann here", "ann still busy", is_all=True)

    assert await attend(connection, node, 2, "ann gone") is None
    assert await attend(connection, node, 2, is_all=True) is None
    assert await attend(connection, node, 3, "ann away") is None

    assert await told(connection) == [("ann", "busy")]


async def test_a_link_that_swallows_what_is_said_changes_nothing_in_the_end(
    database: str, connection: asyncpg.Connection
) -> None:
    """What was swallowed comes out over the old connection when the new one is in use."""
    async with proxy_to(database) as (url, proxy), attending(url, timeout_seconds=0.5) as process:
        visit = process.welcome("ann")
        process.attendance.state("ann", "busy")
        await process.known()
        proxy.swallow()
        process.attendance.leave(visit)
        await asyncio.sleep(0.7)
        process.welcome("ann")
        process.attendance.state("ann", "busy")
        proxy.restore()
        await process.known()

        statuses = [status for _, status in await told(connection)]
        assert statuses in (["busy"], ["busy", "offline", "busy"])
        assert await connection.fetchval("SELECT status FROM brain.presence") == "busy"


async def test_after_a_lost_connection_only_what_is_new_is_told(
    database: str, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brain.database.nodes.RETRY_SECONDS", 0.5)
    async with attending(database) as one, attending(database) as other:
        for user in ("ann", "bob", "cid"):
            gone = one.welcome(user)
            one.attendance.state(user, "online")
        await one.known()
        other.welcome("ann")
        other.attendance.state("ann", "away")
        await other.known()
        before = await told(connection)

        await connection.execute(TERMINATE)
        one.attendance.state("bob", "busy")
        one.attendance.leave(gone)
        await asyncio.sleep(0.1)
        await one.known()
        await other.known()

        assert sorted((await told(connection))[len(before) :]) == [
            ("bob", "busy"),
            ("cid", "offline"),
        ]


async def test_a_crash_of_the_server_has_nothing_told_twice_and_leaves_nobody_online(
    database: str, connection: asyncpg.Connection
) -> None:
    """What is not logged is empty afterwards, and connections are gone."""
    async with attending(database) as one, attending(database) as dying:
        one.welcome("ann")
        one.attendance.state("ann", "busy")
        dying.welcome("bob")
        dying.attendance.state("bob", "away")
        await one.known()
        await dying.known()
        before = await told(connection)
        await dying.die()

        await connection.execute(f"{CRASH}; {TERMINATE}")
        await becomes(lambda: connection.fetchval("SELECT count(*) FROM brain.node_users"), 1)
        await one.known()
        assert await told(connection) == before

        await connection.execute("UPDATE brain.roll_call SET since = since - interval '16 s'")
        await becomes(lambda: told(connection), [*before, ("bob", "offline")])
        assert await connection.fetchval("SELECT is_over FROM brain.roll_call")


async def test_only_what_was_told_last_is_written_so_that_a_crash_does_not_lose_it(
    connection: asyncpg.Connection,
) -> None:
    logged = await connection.fetch(
        "SELECT relname FROM pg_class WHERE relkind = 'r' AND relpersistence = 'p'"
        "   AND relnamespace = 'brain'::regnamespace AND relname = ANY ($1) ORDER BY relname",
        ["nodes", "node_users", "connections", "roll_call", "presence"],
    )

    assert [row["relname"] for row in logged] == ["presence"]


async def test_of_a_large_process_that_died_the_users_are_told_bit_by_bit_and_each_once(
    connection: asyncpg.Connection,
) -> None:
    dead, alive = uuid4(), uuid4()
    await attend(connection, dead, 1, is_all=True)
    await attend(connection, alive, 1, is_all=True)
    await connection.execute(
        "INSERT INTO brain.node_users SELECT $1, n::text FROM generate_series(1, 12000) n", dead
    )
    await connection.execute(
        "INSERT INTO brain.presence SELECT user_id, 'busy' FROM brain.node_users"
    )
    await last_seen(connection, dead, 6)

    told_after = []
    for news in range(2, 6):
        await attend(connection, alive, news)
        told_after.append(len(await told(connection)))
    assert told_after == [5000, 10000, 12000, 12000]
    assert len(set(await told(connection))) == 12000
    assert await connection.fetchval("SELECT array_agg(id) FROM brain.nodes") == [alive]


async def test_a_large_process_that_comes_back_while_it_is_being_forgotten_has_to_say_all(
    connection: asyncpg.Connection,
) -> None:
    back, alive = uuid4(), uuid4()
    users = [str(number) for number in range(6000)]
    for node in (back, alive):
        await attend(connection, node, 1, is_all=True)
    await connection.execute(
        "INSERT INTO brain.node_users SELECT $1, unnest($2::text[])", back, users
    )
    await last_seen(connection, back, 6)
    await attend(connection, alive, 2)

    assert await attend(connection, back, 2, "0 gone") is None
    here = [f"{user} here" for user in users]
    assert await attend(connection, back, 3, *here, is_all=True) is not None
    assert await attend(connection, alive, 3) is not None
    assert await connection.fetchval("SELECT count(*) FROM brain.node_users") == 6000


async def test_a_node_of_the_former_version_tells_who_went_with_a_process_that_died(
    connection: asyncpg.Connection,
) -> None:
    dead, old = uuid4(), uuid4()
    await attend(connection, dead, 1, "ann here", "ann busy", is_all=True)
    await last_seen(connection, dead, 6)

    await connection.execute("SELECT brain.beat($1, 'of the former version', 3)", old)

    assert await told(connection) == [("ann", "busy"), ("ann", "offline")]
    (counts,) = await connection.fetch("SELECT clients, users FROM brain.everywhere()")
    assert tuple(counts) == (3, 0)


async def test_nobody_waits_for_who_buries_the_dead(
    database: str, connection: asyncpg.Connection
) -> None:
    dead, alive = uuid4(), uuid4()
    await attend(connection, dead, 1, "ann here", "ann busy", is_all=True)
    await attend(connection, alive, 1, "bob here", is_all=True)
    await last_seen(connection, dead, 6)
    other = await asyncpg.connect(database)
    async with other.transaction():
        await other.execute("SELECT FROM brain.nodes WHERE id = $1 FOR UPDATE", dead)

        await connection.execute("SET lock_timeout = '100ms'")
        assert await attend(connection, alive, 2, "bob busy") is not None
        assert await told(connection) == [("ann", "busy"), ("bob", "busy")]
    await other.close()

    await attend(connection, alive, 3)
    assert (await told(connection))[2:] == [("ann", "offline")]


async def test_two_processes_that_a_user_leaves_at_once_do_not_rely_on_each_other(
    database: str, connection: asyncpg.Connection
) -> None:
    """Either could find him at the other one still. Here both have looked before one commits."""
    one, other = uuid4(), uuid4()
    await attend(connection, one, 1, "ann here", "ann busy", is_all=True)
    await attend(connection, other, 1, "ann here", is_all=True)
    second = await asyncpg.connect(database)
    async with connection.transaction():
        await attend(connection, one, 2, "ann gone")
        leaving = asyncio.create_task(attend(second, other, 2, "ann gone"))
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not await connection.fetchval(
                "SELECT cardinality(pg_blocking_pids($1)) > 0", second.get_server_pid()
            ):
                await asyncio.sleep(0)
    await leaving
    await second.close()

    assert await told(connection) == [("ann", "busy"), ("ann", "offline")]


def by_user(sequence: list[tuple[str, str]]) -> dict[str, list[str]]:
    sequences: dict[str, list[str]] = defaultdict(list)
    for user, status in sequence:
        sequences[user].append(status)
    return sequences


async def told_sorted(connection: asyncpg.Connection, *cuts: int) -> list[tuple[str, str]]:
    """Return what was told, in which what lies between two of `cuts` has no certain order."""
    sequence = await told(connection)
    ends = [0, *cuts, len(sequence)]
    return [item for start, end in pairwise(ends) for item in sorted_stably(sequence[start:end])]


def sorted_stably(sequence: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return sorted(sequence, key=lambda item: item[0])


class Crowd:
    """Many users who come, state how they are, and go, at several processes."""

    def __init__(self, processes: list[Process], chance: random.Random) -> None:
        self._processes = processes
        self._chance = chance
        self._here: list[tuple[Process, Visit]] = []

    def act(self) -> None:
        """Have something happen."""
        chance = self._chance
        process = chance.choice(self._processes)
        match chance.choice(("come", "state", "state", "go")):
            case "come":
                user = f"user {chance.randrange(30)}"
                self._here.append((process, process.welcome(user)))
            case "state" if self._here:
                process, visit = chance.choice(self._here)
                process.attendance.state(str(visit.user), chance.choice(STATUSES))
            case "go" if self._here:
                process, visit = self._here.pop(chance.randrange(len(self._here)))
                process.attendance.leave(visit)

    def everybody_leaves(self) -> None:
        for process, visit in self._here:
            process.attendance.leave(visit)
        self._here.clear()

    def users(self) -> set[str]:
        return {str(visit.user) for _, visit in self._here}


@pytest.mark.parametrize("with_faults", [False, True], ids=["undisturbed", "with faults"])
async def test_whatever_a_crowd_does_each_user_is_offline_in_the_end_and_nothing_is_repeated(
    database: str,
    connection: asyncpg.Connection,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    with_faults: bool,
) -> None:
    monkeypatch.setattr("brain.database.nodes.RETRY_SECONDS", 0.05)
    chance = random.Random(5221)
    async with AsyncExitStack() as stack:
        processes = [await stack.enter_async_context(attending(database)) for _ in range(3)]
        crowd = Crowd(processes, chance)
        for number in range(3000):
            crowd.act()
            if number % 5 == 0:
                await asyncio.sleep(chance.choice((0, 0.001, 0.01)))
            if with_faults and number % 200 == 0:
                await connection.execute(TERMINATE if chance.random() < 0.3 else "SELECT")
                await last_seen(connection, chance.choice(processes).nodes.id, 6)
        for process in processes:
            await process.known()
        now = {user: sequence[-1] for user, sequence in by_user(await told(connection)).items()}
        present = {
            row["user_id"]: row["status"]
            for row in await connection.fetch("SELECT user_id, status FROM brain.presence")
        }
        assert {user: status for user, status in now.items() if status != "offline"} == present
        assert present.keys() <= crowd.users()
        assert with_faults or not caplog.records

        crowd.everybody_leaves()
        for process in processes:
            await process.known()
        await becomes(lambda: connection.fetchval(NOBODY), True)
        sequences = by_user(await told(connection))

    assert sum(map(len, sequences.values())) > 500
    assert len(sequences) == 30
    for sequence in sequences.values():
        assert sequence[-1] == "offline"
        assert all(former != latter for former, latter in pairwise(sequence))
