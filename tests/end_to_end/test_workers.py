"""Several worker processes on one port, which together act as one Brain."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import asyncpg
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from brain.embedded.processes import read_postmaster
from tests.end_to_end.brain import (
    PATIENCE_SECONDS,
    RunningBrain,
    becomes,
    brain,
    ended,
    get,
    logged,
    message,
    running_brain,
)
from tests.tasks import insert

WORKERS = 2
CLIENTS = 24
STARTED = re.compile(r"worker (\d+) is process (\d+)")

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")


@pytest.fixture
async def several(tmp_path: Path, database: str) -> AsyncIterator[RunningBrain]:
    async with running_workers(tmp_path, "--database-url", database) as brain:
        yield brain


@asynccontextmanager
async def running_workers(
    folder: Path, *arguments: str, **environment: str
) -> AsyncIterator[RunningBrain]:
    """Run a Brain of several processes, none of which outlives the context."""
    environment = {"BRAIN_WORKERS": str(WORKERS), **environment}
    async with running_brain(folder, *arguments, **environment) as brain:
        try:
            yield brain
        finally:
            if brain.process.returncode is not None:
                for process_id in filter(is_alive, started(brain)):
                    os.kill(process_id, signal.SIGKILL)


def started(brain: RunningBrain) -> list[int]:
    """Return the process ids of all workers so far, in the order in which they started."""
    return [int(process_id) for _, process_id in STARTED.findall(brain.output.read_text())]


def is_alive(process_id: int) -> bool:
    try:
        status = Path(f"/proc/{process_id}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


async def counted(brain: RunningBrain, clients: int) -> None:
    """Return once the status counts this many clients."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            _, body = await get(brain.http + "/api/brain/status/ws")
            status = json.loads(body)["websocket"]
            if status["connected_clients"] == clients:
                assert status == {
                    "active": True,
                    "connected_clients": clients,
                    "endpoint": "/ws",
                }
                return
            await asyncio.sleep(0.02)


async def clients_of(connection: asyncpg.Connection) -> dict[int, int]:
    """Return the number of clients that each process reports, by its id."""
    records = await connection.fetch("SELECT name, clients FROM brain.nodes")
    return {int(record["name"].split()[-1]): record["clients"] for record in records}


@asynccontextmanager
async def many_clients(brain: RunningBrain, count: int) -> AsyncIterator[list[ClientConnection]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(brain.client()) for _ in range(count)]


async def closed_with_1012(clients: Sequence[ClientConnection]) -> None:
    for client in clients:
        with pytest.raises(ConnectionClosed) as closed:
            await message(client)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012


async def flooded(brain: RunningBrain, connection: asyncpg.Connection) -> None:
    """Send all clients more than the buffers of an unread connection hold."""
    async with brain.client() as client:
        for number in range(100):
            await insert_large(connection, str(number))
            assert (await message(client))["data"]["id"] == str(number)


async def insert_large(connection: asyncpg.Connection, id: str) -> None:
    await connection.execute("INSERT INTO tasks (id, error) VALUES ($1, $2)", id, "x" * 200_000)


async def test_clients_spread_over_the_workers_and_each_gets_every_change(
    several: RunningBrain, connection: asyncpg.Connection
) -> None:
    async with many_clients(several, CLIENTS) as clients:
        await counted(several, CLIENTS)
        spread = await clients_of(connection)
        await insert(connection, "a", "b", "c")

        for client in clients:
            assert [(await message(client))["data"]["id"] for _ in range(3)] == ["a", "b", "c"]
    await counted(several, 0)
    assert set(spread) == set(started(several))
    assert len([count for count in spread.values() if count]) > 1


async def test_the_status_counts_the_clients_of_all_brains_on_the_database(
    tmp_path: Path, database: str, several: RunningBrain
) -> None:
    (tmp_path / "alone").mkdir()
    async with running_brain(tmp_path / "alone", "--database-url", database) as alone:
        async with many_clients(several, 5), many_clients(alone, 2):
            await counted(several, 7)
            await counted(alone, 7)
        assert await children(alone) == []
        alone.process.send_signal(signal.SIGTERM)
        assert await alone.stopped() == 0
    await counted(several, 0)


async def children(brain: RunningBrain) -> list[str]:
    process_id = brain.process.pid
    return Path(f"/proc/{process_id}/task/{process_id}/children").read_text().split()


@dataclass
class ResumingClient:
    """A client that resumes with its cursor, and notes the tasks that it receives."""

    port: int
    received: list[str] = field(default_factory=list)
    cursor: str = ""
    returns: int = 0

    async def follow(self, last: str) -> None:
        """Listen until `last` is received; reconnect whenever the connection is lost."""
        while last not in self.received:
            with suppress(ConnectionClosed, OSError):
                url = f"ws://localhost:{self.port}/ws?cursor={quote(self.cursor)}"
                async with connect(url, proxy=None) as client:
                    while last not in self.received:
                        self._note(await message(client))
            self.returns += 1

    def _note(self, each: dict[str, Any]) -> None:
        self.cursor = each["cursor"]
        if each["type"] == "run_update":
            self.received.append(each["data"]["id"])
        else:
            assert each["type"] in ("connected", "heartbeat"), each


async def test_the_clients_of_a_killed_worker_reconnect_and_lose_nothing(
    several: RunningBrain, connection: asyncpg.Connection
) -> None:
    followers = [ResumingClient(several.port) for _ in range(CLIENTS)]
    async with asyncio.TaskGroup() as tasks:
        for follower in followers:
            tasks.create_task(follower.follow("299"))
        await counted(several, CLIENTS)
        for number in range(300):
            await insert(connection, str(number))
            if number in (100, 200):
                spread = await clients_of(connection)
                killed = max(filter(is_alive, spread), key=lambda process_id: spread[process_id])
                before = len(started(several))
                os.kill(killed, signal.SIGKILL)
                await becomes(lambda before=before: len(started(several)) > before)  # type: ignore[misc]

    for follower in followers:
        assert follower.received == [str(number) for number in range(300)]
    assert sum(follower.returns for follower in followers) > CLIENTS
    assert f"(process {killed}) was killed by signal 9" in several.output.read_text()
    await counted(several, 0)


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
async def test_every_client_is_closed_with_1012_and_all_processes_end(
    several: RunningBrain, sign: signal.Signals
) -> None:
    async with many_clients(several, CLIENTS) as clients:
        several.process.send_signal(sign)

        await closed_with_1012(clients)
        assert await several.stopped() == 0
    assert not any(map(is_alive, started(several)))
    log = several.output.read_text()
    assert "Traceback" not in log
    assert "next try" not in log


async def test_a_signal_to_supervisor_and_workers_counts_once(
    several: RunningBrain,
) -> None:
    """As systemd does. The signals differ: equal ones to a suspended process become one."""
    async with many_clients(several, CLIENTS) as clients:
        workers = started(several)
        for process_id in workers:
            os.kill(process_id, signal.SIGSTOP)
            os.kill(process_id, signal.SIGINT)
        several.process.send_signal(signal.SIGTERM)
        await becomes(lambda: all(is_pending(signal.SIGTERM, each) for each in workers))
        for process_id in workers:
            os.kill(process_id, signal.SIGCONT)

        await closed_with_1012(clients)
        assert await several.stopped() == 0


def is_pending(number: signal.Signals, process_id: int) -> bool:
    status = Path(f"/proc/{process_id}/status").read_text()
    (pending,) = re.findall(r"ShdPnd:\s+(\w+)", status)
    return bool(int(pending, 16) & 1 << number - 1)


def can_connect(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return False
    return True


async def test_a_second_signal_aborts_the_clients(
    tmp_path: Path, database: str, connection: asyncpg.Connection
) -> None:
    patient = {"BRAIN_SHUTDOWN_SECONDS": "600"}
    async with running_workers(tmp_path, "--database-url", database, **patient) as brain:
        async with brain.client() as stalled:
            stalled.transport.pause_reading()
            await flooded(brain, connection)
            brain.process.send_signal(signal.SIGTERM)
            await becomes(lambda: not can_connect(brain.port))
            brain.process.send_signal(signal.SIGTERM)

            assert await brain.stopped() == 0
            stalled.transport.abort()
    assert not any(map(is_alive, started(brain)))


async def test_workers_do_not_outlive_a_supervisor_that_is_killed(
    tmp_path: Path, database: str, connection: asyncpg.Connection
) -> None:
    """Even if a client delays their shutdown."""
    patient = {"BRAIN_SHUTDOWN_SECONDS": "600"}
    async with running_workers(tmp_path, "--database-url", database, **patient) as brain:
        async with brain.client() as stalled, many_clients(brain, CLIENTS) as clients:
            stalled.transport.pause_reading()
            await flooded(brain, connection)
            for client in clients:
                for _ in range(100):
                    await message(client)

            brain.process.kill()

            await closed_with_1012(clients)
            await becomes(lambda: not any(map(is_alive, started(brain))))
            socket.create_server(("localhost", brain.port)).close()
            stalled.transport.abort()
    assert len(started(brain)) == WORKERS


async def test_a_worker_that_hangs_does_not_outlive_its_supervisor_either(
    several: RunningBrain,
) -> None:
    hanging, *_ = started(several)
    os.kill(hanging, signal.SIGSTOP)

    several.process.kill()

    await becomes(lambda: [each for each in started(several) if is_alive(each)] == [hanging])
    os.kill(hanging, signal.SIGCONT)
    await becomes(lambda: not is_alive(hanging))


async def test_a_worker_that_hangs_is_ended_by_force(tmp_path: Path, database: str) -> None:
    hurried = {"BRAIN_SHUTDOWN_SECONDS": "0.1", "BRAIN_DRAIN_SECONDS": "0"}
    async with running_workers(tmp_path, "--database-url", database, **hurried) as brain:
        os.kill(started(brain)[0], signal.SIGSTOP)

        brain.process.send_signal(signal.SIGTERM)

        assert await brain.stopped() == 0
    assert not any(map(is_alive, started(brain)))


async def test_a_port_on_which_workers_listen_is_taken(
    several: RunningBrain, database: str
) -> None:
    for workers in ("1", "2"):
        second = await brain(
            "serve", f"--port={several.port}", "--workers", workers, DATABASE_URL=database
        )

        assert second.status == 1
        assert second.stderr.startswith(f"brain: port {several.port} is taken")


async def test_when_brains_own_server_ends_so_do_all(tmp_path: Path) -> None:
    home = {"XDG_DATA_HOME": str(tmp_path / "share")}
    async with running_workers(tmp_path, **home) as brain:
        (data,) = (tmp_path / "share").glob("brain/postgres-*/data")
        postmaster = read_postmaster(data)
        assert postmaster is not None
        os.kill(postmaster.process_id, signal.SIGINT)

        assert await brain.stopped() == 1
    assert not any(map(is_alive, started(brain)))
    assert brain.output.read_text().splitlines()[-1].startswith("brain: the PostgreSQL that ")


SUPERVISED = """
import logging, os, sys
from brain.process.supervisor import Supervisor

def work(worker):
    if {fails}:
        os.kill(os.getpid(), 9)
    worker.ready()
    while not worker.should_stop():
        pass
    return 0

def announce():
    print("ready", flush=True)
    os.kill(os.getpid(), 15)

logging.basicConfig()
sys.exit(
    Supervisor(
        [[], []], work, on_ready=announce, should_stop=lambda: False, grace_seconds=1
    ).run()
)
"""


async def test_where_no_worker_starts_brain_gives_up() -> None:
    status, stdout, stderr = await ended(
        (sys.executable, "-c", SUPERVISED.format(fails="True")), patience_seconds=60
    )

    assert (status, stdout) == (1, "")
    *_, last = stderr.splitlines()
    assert last.endswith("giving up: every worker ended 4 times in a row")
    assert stderr.count("was killed by signal 9; next try in") == 8


async def test_a_worker_that_fails_at_the_start_is_tried_again_beside_one_that_serves(
    tmp_path: Path,
) -> None:
    tries = tmp_path / "tries"
    fails = f"worker.number == 2 and open({str(tries)!r}, 'a').write('x') and {{count}} < 6"
    fails = fails.format(count=f"os.path.getsize({str(tries)!r})")
    status, stdout, stderr = await ended(
        (sys.executable, "-c", SUPERVISED.format(fails=fails)), patience_seconds=60
    )

    assert (status, stdout) == (0, "ready\n")
    assert stderr.count("worker 2") == tries.stat().st_size - 1


PROGRAM_STARTS = "import os\nos.write(2, b'{} begins\\n')\n"
FAILS = "import os\nos._exit(3)\n"
REPLACED = "all workers are replaced"


@asynccontextmanager
async def installed(folder: Path, database: str) -> AsyncIterator[tuple[RunningBrain, Path]]:
    """Run a Brain of several processes, and yield a file that is a part of what is installed."""
    program = folder / "program" / "sitecustomize.py"
    program.parent.mkdir()
    program.write_text(PROGRAM_STARTS.format("the first"))
    path = os.pathsep.join((str(program.parent), *filter(None, [os.environ.get("PYTHONPATH")])))
    async with running_workers(folder, "--database-url", database, PYTHONPATH=path) as brain:
        yield brain, program


async def test_sigusr2_replaces_the_workers_by_what_is_installed_now_and_nothing_is_lost(
    tmp_path: Path, database: str, connection: asyncpg.Connection
) -> None:
    async with installed(tmp_path, database) as (brain, program):
        followers = [ResumingClient(brain.port) for _ in range(CLIENTS)]
        async with asyncio.TaskGroup() as tasks:
            for follower in followers:
                tasks.create_task(follower.follow("last"))
            await counted(brain, CLIENTS)
            former = started(brain)
            program.write_text(PROGRAM_STARTS.format("the second"))
            brain.process.send_signal(signal.SIGUSR2)
            written = 0
            while REPLACED not in brain.output.read_text():
                await insert(connection, str(written))
                written += 1
            await insert(connection, "last")

        for follower in followers:
            assert follower.received == [*map(str, range(written)), "last"]
        # One that comes back to a worker whose turn is still to come is closed again.
        assert sum(follower.returns for follower in followers) >= 2 * CLIENTS
        assert not any(map(is_alive, former))
        assert len(started(brain)) == 2 * WORKERS
        assert all(map(is_alive, started(brain)[WORKERS:]))
        log = brain.output.read_text()
        assert log.count("the first begins") == 1
        assert log.count("the second begins") == WORKERS

        # One that dies is restarted as it was.
        os.kill(started(brain)[-1], signal.SIGKILL)
        await becomes(lambda: len(started(brain)) == 2 * WORKERS + 1)
        assert brain.output.read_text().count("the second begins") == WORKERS + 1
        brain.process.send_signal(signal.SIGTERM)
        assert await brain.stopped() == 0
    assert not any(map(is_alive, started(brain)))


async def test_what_does_not_start_replaces_no_worker(tmp_path: Path, database: str) -> None:
    async with installed(tmp_path, database) as (brain, program):
        async with many_clients(brain, CLIENTS) as clients:
            program.write_text(FAILS)
            brain.process.send_signal(signal.SIGUSR2)
            line = re.compile(
                "ERROR .*worker 1 is not replaced: its successor .* ended with status 3;"
            )
            await logged(brain.output, line)

            assert [each for each in started(brain) if is_alive(each)] == started(brain)
            for client in clients:
                await client.ping()
        await counted(brain, 0)
    assert len(started(brain)) == WORKERS


async def test_brains_own_server_outlives_the_workers_that_are_replaced(tmp_path: Path) -> None:
    home = {"XDG_DATA_HOME": str(tmp_path / "share")}
    async with running_workers(tmp_path, **home) as brain:
        brain.process.send_signal(signal.SIGUSR2)

        await logged(brain.output, re.compile(REPLACED))
        await counted(brain, 0)
    assert len(started(brain)) == 2 * WORKERS


async def test_sigusr2_to_a_single_process_says_what_to_do_instead(
    tmp_path: Path, database: str, connection: asyncpg.Connection
) -> None:
    async with running_brain(tmp_path, "--database-url", database) as alone:
        async with alone.client() as client:
            alone.process.send_signal(signal.SIGUSR2)

            await logged(
                alone.output, re.compile("SIGUSR2 replaces workers, and this Brain has none")
            )
            await insert(connection, "1")
            assert (await message(client))["data"]["id"] == "1"


async def test_sigusr1_prints_the_stacks_of_each_process_and_ends_none(
    several: RunningBrain,
) -> None:
    for process_id in (several.process.pid, *started(several)):
        os.kill(process_id, signal.SIGUSR1)
    await becomes(lambda: several.output.read_text().count("most recent call first") >= WORKERS + 1)

    await counted(several, 0)
    assert several.process.returncode is None
    assert len(started(several)) == WORKERS


async def test_a_worker_that_hangs_is_killed_and_restarted(tmp_path: Path, database: str) -> None:
    impatient = {"BRAIN_WORKER_TIMEOUT_SECONDS": "8"}
    async with running_workers(tmp_path, "--database-url", database, **impatient) as brain:
        hanging, *_ = started(brain)
        os.kill(hanging, signal.SIGSTOP)

        await becomes(lambda: len(started(brain)) > WORKERS)
        assert not is_alive(hanging)
        assert f"(process {hanging}) gave no heartbeat for" in brain.output.read_text()
        await counted(brain, 0)
