"""What a program keeps across its restarts."""

from __future__ import annotations

import asyncio
import itertools
import random
import sys
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from brain.client import Brain, CursorFileError
from brain.client.cursor_file import CursorFile
from tests.client.following import next_of, ops, up_to
from tests.end_to_end.brain import RunningBrain, becomes, clean_environment

CONSUMER = Path(__file__).parent / "consumer.py"
ROUNDS = 12
MOST_WAITING = 40


@asynccontextmanager
async def consumer(*arguments: Path | str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run the program until it is killed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(CONSUMER),
        *map(str, arguments),
        env={**clean_environment(), "PYTHONPATH": str(Path.cwd())},
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_a_program_that_is_killed_anywhere_loses_nothing_and_repeats_only_what_it_had_in_hand(
    shared_brain: RunningBrain, orders: asyncpg.Connection, tmp_path: Path
) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    cursors, output = tmp_path / "cursors.json", tmp_path / "handled"
    output.touch()
    inserted = 0

    async def insert() -> None:
        nonlocal inserted
        inserted += 1
        await orders.execute("INSERT INTO orders VALUES ($1, 'new', 1)", inserted)

    await insert()
    async with consumer(shared_brain.http, cursors, output):
        await becomes(lambda: "end live" in output.read_text())
    for _ in range(ROUNDS):
        async with consumer(shared_brain.http, cursors, output):
            lines = goal = len(output.read_text().splitlines())
            goal += dice.randrange(1, 30)
            while lines < goal:
                if 2 * inserted - lines < MOST_WAITING:
                    await insert()
                await asyncio.sleep(0.001)
                lines = len(output.read_text().splitlines())
    await insert()
    async with consumer(shared_brain.http, cursors, output):
        await becomes(lambda: f"end insert {inserted}\n" in output.read_text())

    lines_of_rows = [line.split() for line in output.read_text().splitlines()]
    changes = [(word, int(key)) for word, op, key in lines_of_rows if op == "insert"]
    assert not [op for _, op, _ in lines_of_rows if op == "reset"]
    handled = {number for word, number in changes if word == "end"}
    assert handled == set(range(2, inserted + 1))
    begun = [number for word, number in changes if word == "begin"]
    # Each is the one after, or, after a kill, the one that was in hand again.
    steps = [after - before for before, after in itertools.pairwise(begun)]
    assert set(steps) <= {0, 1}
    assert steps.count(0) <= ROUNDS


async def test_each_subscription_goes_on_where_its_loop_was(
    shared_brain: RunningBrain, orders: asyncpg.Connection, tmp_path: Path
) -> None:
    path = tmp_path / "cursors.json"
    late: Any = {"where": {"status": "late"}}
    async with Brain(shared_brain.http, cursor_file=path) as brain:
        everything = brain.subscribe("orders", snapshot=True)
        filtered = brain.subscribe("orders", snapshot=True, **late)
        await up_to(everything, "live")
        await up_to(filtered, "live")
        await orders.execute("INSERT INTO orders VALUES (1, 'new', 1)")
        await orders.execute("INSERT INTO orders VALUES (2, 'late', 1)")
        assert ops([await next_of(everything), await next_of(everything)]) == [
            ("insert", 1),
            ("insert", 2),
        ]
        assert ops([await next_of(filtered)]) == [("insert", 2)]
        await filtered.store_cursor()
    await orders.execute("INSERT INTO orders VALUES (3, 'late', 1)")
    async with Brain(shared_brain.http, cursor_file=path) as brain:
        everything = brain.subscribe("orders", snapshot=True)
        filtered = brain.subscribe("orders", snapshot=True, **late)
        # The loop had 2 in hand, but for the filtered one that stored it.
        assert ops(await up_to(everything, "live"))[:-1] == [("insert", 2), ("insert", 3)]
        assert ops(await up_to(filtered, "live"))[:-1] == [("insert", 3)]


async def test_a_snapshot_that_was_interrupted_begins_anew_with_a_reset(
    shared_brain: RunningBrain, orders: asyncpg.Connection, tmp_path: Path
) -> None:
    await orders.execute("INSERT INTO orders SELECT n, 'new', 1 FROM generate_series(1, 20) n")
    path = tmp_path / "cursors.json"
    async with Brain(shared_brain.http, cursor_file=path) as brain:
        changes = brain.subscribe("orders", snapshot=True, limit=3)
        assert ops([await next_of(changes) for _ in range(10)])[0] == ("snapshot", 1)
    await orders.execute("DELETE FROM orders WHERE id = 1")
    async with Brain(shared_brain.http, cursor_file=path) as brain:
        got = ops(await up_to(brain.subscribe("orders", snapshot=True), "live"))
    snapshot = [("snapshot", number) for number in range(2, 21)]
    assert got == [("reset", None), *snapshot, ("snapshot-end", None), ("live", None)]


async def test_a_cursor_that_the_log_does_not_hold_any_more_leads_to_a_reset_and_a_snapshot(
    shared_brain: RunningBrain, orders: asyncpg.Connection, tmp_path: Path
) -> None:
    path = tmp_path / "cursors.json"
    file = CursorFile(path)
    file.open()
    await file.store("orders", "1.1.1")
    file.close()
    await orders.execute("INSERT INTO orders VALUES (1, 'new', 1)")
    async with Brain(shared_brain.http, cursor_file=path) as brain:
        got = await up_to(brain.subscribe("orders", snapshot=True), "live")
    assert ops(got) == [("reset", None), ("snapshot", 1), ("snapshot-end", None), ("live", None)]
    assert got[0].reason


async def test_what_happened_between_two_runs_comes_without_a_snapshot_too(
    shared_brain: RunningBrain, orders: asyncpg.Connection, tmp_path: Path
) -> None:
    path = tmp_path / "cursors.json"
    async with Brain(shared_brain.http, cursor_file=path) as brain:
        changes = brain.subscribe("orders")
        waiting = asyncio.create_task(next_of(changes))
        await becomes(lambda: path.exists())
        waiting.cancel()
        await asyncio.wait({waiting})
    await orders.execute("INSERT INTO orders VALUES (1, 'new', 1)")
    async with Brain(shared_brain.http, cursor_file=path) as brain:
        changes = brain.subscribe("orders")
        # The server may read the change only after it has caught up with the client.
        first = [await next_of(changes)]
        if first[0].op == "live":
            first = [await next_of(changes)]
        assert ops(first) == [("insert", 1)]


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"format": "brain cursors 1", "cursors": {"orders": 7}}']
)
async def test_a_damaged_cursor_file_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "cursors.json"
    path.write_text(content)
    with pytest.raises(CursorFileError, match=r"cursors\.json.*remove it to begin anew"):
        async with Brain("http://localhost:1", cursor_file=path):
            raise AssertionError
    assert path.read_text() == content


async def test_a_cursor_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "cursors.json"
    with pytest.raises(CursorFileError, match=r"nowhere/cursors\.json.*cannot be written"):
        async with Brain("http://localhost:1", cursor_file=path):
            raise AssertionError


async def test_two_programs_cannot_use_one_cursor_file(tmp_path: Path) -> None:
    path = tmp_path / "cursors.json"
    async with Brain("http://localhost:1", cursor_file=path):
        with pytest.raises(CursorFileError, match="another program uses it"):
            async with Brain("http://localhost:1", cursor_file=path):
                raise AssertionError
    async with Brain("http://localhost:1", cursor_file=path):
        pass


async def test_two_loops_cannot_share_a_cursor(tmp_path: Path) -> None:
    async with Brain("http://localhost:1", cursor_file=tmp_path / "cursors.json") as brain:
        first = brain.subscribe("orders")
        with pytest.raises(ValueError, match="name="):
            brain.subscribe("orders")
        brain.subscribe("orders", name="others")
        await first.aclose()
        brain.subscribe("orders")


async def test_a_cursor_whose_write_was_cancelled_before_it_began_is_written_by_the_next_call(
    tmp_path: Path,
) -> None:
    loop, path = asyncio.get_running_loop(), tmp_path / "cursors"
    busy, free = ThreadPoolExecutor(1), threading.Event()
    loop.set_default_executor(busy)
    cursors = CursorFile(path)
    cursors.open()
    try:
        waiting = busy.submit(free.wait)
        storing = asyncio.create_task(cursors.store("orders", "1.2.3"))
        await asyncio.sleep(0)
        storing.cancel()
        await asyncio.wait((storing,))
        free.set()
        await asyncio.wrap_future(waiting)
        assert not path.exists()

        await cursors.store("orders", "1.2.3")
        assert '"orders": "1.2.3"' in path.read_text()
    finally:
        free.set()
        cursors.close()
        loop.set_default_executor(ThreadPoolExecutor())
        busy.shutdown()


async def test_nothing_is_written_once_another_program_may_use_the_file(tmp_path: Path) -> None:
    former, present = CursorFile(tmp_path / "cursors"), CursorFile(tmp_path / "cursors")
    former.open()
    await former.store("orders", "1.1.1")
    former.close()
    present.open()
    await present.store("orders", "2.2.2")
    with pytest.raises(CursorFileError, match="is closed"):
        await former.store("orders", "1.1.2")
    present.close()
    present.open()
    assert present.cursor("orders") == "2.2.2"
    present.close()
