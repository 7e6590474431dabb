"""What Prometheus reads of a real Brain, of one process and of several."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import asyncpg
import pytest
from httpx2 import AsyncClient
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from brain.metrics.files import PREFIX
from tests.end_to_end.brain import (
    PATIENCE_SECONDS,
    RunningBrain,
    becomes,
    ended,
    get,
    logged,
    message,
    running_brain,
)
from tests.end_to_end.test_workers import running_workers, started
from tests.metrics.exposed import Exposed, documented, fresh, metrics_port, scrape, shows
from tests.postgres import ResettableDatabase
from tests.proxy import proxy_to
from tests.tasks import insert

TOKEN = "a-token-of-prometheus"
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and /dev/shm")


@pytest.fixture(scope="module")
def brain_settings() -> dict[str, str]:
    return {
        "BRAIN_METRICS_PORT": "0",
        "BRAIN_METRICS_TOKEN": TOKEN,
        "BRAIN_METRICS_CHANNELS": "tasks",
        "BRAIN_METRICS_DATABASE_SECONDS": "0.2",
        "BRAIN_JWT_SECRET": "",
    }


@pytest.fixture
async def shared_connection(shared_database: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(shared_database)
    yield connection
    await connection.close()


async def test_everything_that_is_documented_is_shown_and_nothing_else(
    shared_brain: RunningBrain,
) -> None:
    port = metrics_port(shared_brain.output)
    exposed = await shows(port, lambda one: one.value("brain_watches"))
    shown = {
        f"{name}_total" if family.type == "counter" else name: family.type
        for name, family in exposed.families.items()
    }
    assert shown == {name: kind for name, (kind, _) in documented().items()}
    for family in exposed.families.values():
        for sample in family.samples:
            name = f"{family.name}_total" if family.type == "counter" else family.name
            assert sample.labels.keys() - {"le"} == documented()[name][1]


async def test_promtool_finds_nothing_wrong_with_what_is_shown(shared_brain: RunningBrain) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("needs promtool")
    exposed = await scrape(metrics_port(shared_brain.output))
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=exposed.text, capture_output=True, text=True
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


async def test_a_change_and_its_clients_are_counted(
    shared_brain: RunningBrain, shared_connection: asyncpg.Connection
) -> None:
    port = metrics_port(shared_brain.output)
    before = await fresh(port)

    def grown(now: Exposed, name: str, **labels: str) -> float:
        return (now.value(name, **labels) or 0) - (before.value(name, **labels) or 0)

    async with shared_brain.client() as one, shared_brain.client() as other:
        await insert(shared_connection, "a", "b")
        for client in (one, other):
            assert [(await message(client))["data"]["id"] for _ in "ab"] == ["a", "b"]
        now = await shows(port, lambda it: grown(it, "brain_deliveries_total") >= 4)
        assert now.value("brain_connections", transport="websocket") == 2
        assert now.value("brain_channel_subscribers", channel="tasks") == 2
    assert grown(now, "brain_deliveries_total") == 4
    assert grown(now, "brain_events_total", operation="insert") == 2
    assert grown(now, "brain_channel_events_total", channel="tasks") == 2
    assert grown(now, "brain_connections_opened_total") == 2
    assert grown(now, "brain_sent_bytes_total") > 400
    for name in ("brain_write_to_send_seconds", "brain_tick_to_send_seconds"):
        assert 1 <= grown(now, f"{name}_count") <= 2
        assert 0 <= grown(now, f"{name}_sum") < 2 * PATIENCE_SECONDS
    await shows(
        port,
        lambda it: (
            it.value("brain_connections") == 0
            and grown(it, "brain_connections_closed_total", code="1000") == 2
        ),
    )


async def test_how_a_connection_ends_is_counted_by_its_code(shared_brain: RunningBrain) -> None:
    port = metrics_port(shared_brain.output)
    before = await fresh(port)

    async def counted(code: str) -> None:
        name = "brain_connections_closed_total"
        then = before.value(name, code=code) or 0
        await shows(port, lambda now: now.value(name, code=code) == then + 1)

    async with shared_brain.client() as client:
        client.transport.abort()
        await counted("1006")
    async with shared_brain.client() as client:
        await client.close(4999, "a code of its own")
        await counted("other")
    async with shared_brain.client() as client:
        await client.send("x" * 100_000)
        await counted("1009")


async def test_streams_of_events_are_counted_with_the_other_connections(
    shared_brain: RunningBrain,
) -> None:
    port = metrics_port(shared_brain.output)
    before = await fresh(port)
    closed = "brain_connections_closed_total"
    then = before.value(closed, code="1006") or 0
    async with AsyncClient(trust_env=False, timeout=PATIENCE_SECONDS) as client:
        async with client.stream("GET", f"{shared_brain.http}/sse?channel=tasks") as response:
            assert response.status_code == 200
            await shows(
                port,
                lambda now: now.value("brain_connections", format="brain.v1", transport="sse") == 1,
            )
    # A stream has no close frame with which a client says goodbye.
    await shows(
        port,
        lambda now: (
            now.value("brain_connections", transport="sse") == 0
            and now.value(closed, code="1006") == then + 1
        ),
    )


async def test_clients_that_are_refused_are_counted_by_the_reason(
    shared_brain: RunningBrain,
) -> None:
    port = metrics_port(shared_brain.output)
    for headers, reason in (
        ({"Origin": "https://elsewhere.example"}, "origin"),
        ({"Host": "elsewhere.example"}, "host"),
    ):
        before = await fresh(port)
        expected = (before.value("brain_handshakes_refused_total", reason=reason) or 0) + 1
        with pytest.raises(InvalidStatus):
            async with connect(
                f"ws://127.0.0.1:{shared_brain.port}/ws", additional_headers=headers, proxy=None
            ):
                pass
        await shows(port, refused(reason, expected))


def refused(reason: str, count: float) -> Callable[[Exposed], bool]:
    name = "brain_handshakes_refused_total"
    return lambda now: now.value(name, status="403", reason=reason) == count


async def test_no_name_of_a_client_becomes_a_label(shared_brain: RunningBrain) -> None:
    port = metrics_port(shared_brain.output)
    before = await fresh(port)
    async with AsyncExitStack() as stack:
        for number in range(20):
            path = f"/ws?channel=invented-{number}&token=invented-{number}"
            await stack.enter_async_context(shared_brain.client(path))
            await get(f"{shared_brain.http}/invented-{number}")
        now = await shows(port, lambda it: it.value("brain_connections") == 20)
    assert "invented" not in now.text
    assert len(now.text.splitlines()) - len(before.text.splitlines()) < 10


async def test_the_database_is_looked_into(
    shared_brain: RunningBrain, shared_connection: asyncpg.Connection
) -> None:
    port = metrics_port(shared_brain.output)
    await shows(port, lambda now: now.value("brain_watches_without_trigger") == 0)
    await shared_connection.execute("ALTER TABLE tasks DISABLE TRIGGER USER")
    now = await shows(port, lambda now: now.value("brain_watches_without_trigger") == 1)
    assert now.value("brain_watch_problems") == 1
    await shared_connection.execute("ALTER TABLE tasks ENABLE TRIGGER USER")
    async with shared_connection.transaction():
        await shared_connection.execute("LOCK TABLE agents")
        await shows(port, lambda now: now.value("brain_tables_locked") == 1)
    now = await shows(
        port,
        lambda now: (
            now.value("brain_tables_locked") == now.value("brain_watches_without_trigger") == 0
        ),
    )
    version = await shared_connection.fetchval("SELECT current_setting('server_version_num')::int")
    assert now.value("brain_postgresql_version") == version
    assert (now.value("brain_log_bytes") or 0) > 0
    assert (now.value("brain_database_connections") or 0) >= 4


async def test_the_port_of_the_clients_shows_them_for_the_token_alone(
    shared_brain: RunningBrain,
) -> None:
    async with AsyncClient(trust_env=False) as client:
        address = f"{shared_brain.http}/metrics"
        without = await client.get(address)
        wrong = await client.get(address, headers={"authorization": "Bearer another"})
        right = {"authorization": f"Bearer {TOKEN}", "host": "10.0.0.9:5221"}
        shown = await client.get(address, headers=right)
    assert (without.status_code, wrong.status_code, shown.status_code) == (401, 401, 200)
    assert shown.headers["content-type"].startswith("text/plain; version=")
    assert Exposed(shown.text).value("brain_database_up") == 1


async def test_the_port_of_the_metrics_has_nothing_else(shared_brain: RunningBrain) -> None:
    base = f"http://localhost:{metrics_port(shared_brain.output)}"
    for path in ("/", "/healthz", "/api/brain/status/ws"):
        assert (await get(base + path))[0] == 404
    async with AsyncClient(trust_env=False) as client:
        assert (await client.post(base + "/metrics")).status_code == 501
        assert (await client.head(base + "/metrics")).content == b""


async def test_without_a_token_there_are_none_on_the_port_of_the_clients(
    module_database: ResettableDatabase, tmp_path: Path
) -> None:
    options = ("--database-url", module_database.url)
    async with running_brain(tmp_path, *options, BRAIN_METRICS_PORT="0") as brain:
        assert (await get(f"{brain.http}/metrics"))[0] == 404
        port = metrics_port(brain.output)
        assert (await scrape(port)).value("brain_workers", state="up") == 1


async def test_a_port_that_is_taken_is_named_with_its_setting(shared_brain: RunningBrain) -> None:
    taken = str(metrics_port(shared_brain.output))
    command = (sys.executable, "-m", "brain", "serve", "--port", "0")
    result = await ended(command, {"BRAIN_METRICS_PORT": taken})
    assert result.status == 1
    assert f"port {taken} is taken" in result.stderr
    assert "BRAIN_METRICS_PORT" in result.stderr


@pytest.fixture
async def several(
    tmp_path: Path, module_database: ResettableDatabase
) -> AsyncIterator[RunningBrain]:
    await module_database.reset()
    settings = {"BRAIN_METRICS_PORT": "0", "BRAIN_WORKER_TIMEOUT_SECONDS": "8"}
    async with running_workers(
        tmp_path, "--database-url", module_database.url, **settings
    ) as brain:
        yield brain


def folder_of(brain: RunningBrain) -> Path:
    """Return where a Brain of several workers keeps their metrics: it has files open there."""
    opened = Path(f"/proc/{brain.process.pid}/fd").iterdir()
    links = map(os.readlink, opened)
    (folder,) = {Path(link).parent for link in links if f"/{PREFIX}" in link}
    return folder


def never_went_back(before: Exposed, after: Exposed) -> bool:
    """Return True if no counter of a scrape is less than that of an earlier one."""
    assert before.families.keys() <= after.families.keys()
    for name, family in before.families.items():
        if family.type in ("counter", "histogram"):
            for sample in family.samples:
                now = after.value(sample.name, **sample.labels)
                assert now is not None and now >= sample.value, (name, sample, now)
    return True


async def test_one_scrape_is_the_whole_brain_also_while_a_worker_is_killed_or_hangs(
    several: RunningBrain, shared_connection: asyncpg.Connection
) -> None:
    port = metrics_port(several.output)
    clients = 12
    at_rest = await fresh(port)
    async with AsyncExitStack() as stack:
        for _ in range(clients):
            await stack.enter_async_context(several.client())
        await insert(shared_connection, "a")
        everything = await shows(
            port,
            lambda now: (
                now.value("brain_connections") == clients
                and now.value("brain_deliveries_total") == clients
            ),
        )
        # Whichever worker answers.
        for _ in range(10):
            assert (await scrape(port)).value("brain_connections_opened_total") == clients
        inserts = "brain_events_total"
        before, after = (one.value(inserts, operation="insert") for one in (at_rest, everything))
        assert (before or 0) + 2 == after  # each worker has had it
        assert everything.value("brain_workers", state="up") == 2
        first, second = started(several)[:2]

        os.kill(first, signal.SIGKILL)
        replaced = await shows(
            port,
            lambda now: (
                now.value("brain_worker_restarts_total", reason="died")
                and now.value("brain_workers", state="up") == 2
            ),
        )
        assert never_went_back(everything, replaced)
        left = await shows(port, lambda now: (now.value("brain_connections") or 0) < clients)
        assert left.value("brain_connections_opened_total") == clients

        os.kill(second, signal.SIGSTOP)
        try:
            for _ in range(5):
                assert never_went_back(left, await scrape(port))
            hung = await shows(
                port, lambda now: now.value("brain_worker_restarts_total", reason="hung")
            )
        finally:
            with suppress(ProcessLookupError):  # otherwise nothing could end it
                os.kill(second, signal.SIGCONT)
        assert never_went_back(left, hung)
        await shows(
            port,
            lambda now: (
                now.value("brain_workers", state="up") == 2 and now.value("brain_connections") == 0
            ),
        )
    numbers = (await scrape(port)).families["brain_heartbeat_timestamp_seconds"].samples
    assert sorted(sample.labels["process"] for sample in numbers) == ["1", "2"]


def is_gone(process_id: int) -> bool:
    return not Path(f"/proc/{process_id}").exists()


async def test_workers_that_replace_others_go_on_with_their_counters(
    several: RunningBrain, shared_connection: asyncpg.Connection
) -> None:
    port = metrics_port(several.output)
    async with several.client() as client:
        await insert(shared_connection, "a")
        assert (await message(client))["data"]["id"] == "a"
    before = await fresh(port)
    assert before.value("brain_deliveries_total") == 1
    several.process.send_signal(signal.SIGUSR2)
    after = await shows(
        port,
        lambda now: (
            now.value("brain_worker_restarts_total", reason="replaced") == 2
            and now.value("brain_workers", state="up") == 2
        ),
    )
    assert never_went_back(before, after)
    assert len(after.families["brain_heartbeat_timestamp_seconds"].samples) == 2
    # What the new ones count is added.
    async with several.client() as client:
        await insert(shared_connection, "b")
        assert (await message(client))["data"]["id"] == "b"
    assert (await fresh(port)).value("brain_deliveries_total") == 2

    # As logind does when the user has left.
    folder = folder_of(several)
    shutil.rmtree(folder)
    before_kill = len(started(several))
    os.kill(started(several)[-1], signal.SIGKILL)
    await becomes(lambda: any(folder.glob("gauge_*.db")))
    replaced = await shows(
        port,
        lambda now: (
            now.value("brain_database_up") == 1 and now.value("brain_heartbeat_timestamp_seconds")
        ),
    )
    assert len(replaced.families["brain_heartbeat_timestamp_seconds"].samples) == 1
    assert len(started(several)) == before_kill + 1


async def test_workers_show_no_metrics_where_brain_was_started_without_them(
    tmp_path: Path, module_database: ResettableDatabase
) -> None:
    file = tmp_path / "brain.env"
    file.touch()
    options = ("--database-url", module_database.url, "--env-file", str(file))
    async with running_workers(tmp_path, *options) as brain:
        file.write_text(f"BRAIN_METRICS_TOKEN={TOKEN}\nBRAIN_METRICS_CHANNELS=tasks\n")
        brain.process.send_signal(signal.SIGUSR2)
        await logged(brain.output, re.compile("all workers are replaced"))
        async with AsyncClient(trust_env=False) as client:
            answer = await client.get(
                f"{brain.http}/metrics", headers={"authorization": f"Bearer {TOKEN}"}
            )
        assert answer.status_code == 404


async def test_the_files_of_workers_are_removed_at_the_end_and_after_a_kill_at_the_next_start(
    tmp_path: Path, module_database: ResettableDatabase
) -> None:
    options = ("--database-url", module_database.url)
    async with running_workers(tmp_path, *options, BRAIN_METRICS_PORT="0") as brain:
        killed = folder_of(brain)
        async with brain.client():
            await shows(metrics_port(brain.output), lambda now: now.value("brain_connections") == 1)
        workers = started(brain)
        brain.process.kill()
        await brain.stopped()
        await becomes(lambda: all(map(is_gone, workers)))
    async with running_workers(tmp_path, *options, BRAIN_METRICS_PORT="0") as brain:
        assert not killed.exists()
        folder = folder_of(brain)
        assert len(list(folder.glob("*.db"))) < 20
        exposed = await scrape(metrics_port(brain.output))
        assert exposed.value("brain_connections_opened_total") == 0
    assert not folder.exists()


async def test_the_metrics_are_shown_while_the_database_is_down(
    tmp_path: Path, module_database: ResettableDatabase
) -> None:
    settings = {
        "BRAIN_METRICS_PORT": "0",
        "BRAIN_IDLE_POLL_SECONDS": "0.3",
        "BRAIN_DATABASE_TIMEOUT_SECONDS": "0.5",
    }
    async with (
        proxy_to(module_database.url) as (url, proxy),
        running_brain(tmp_path, "--database-url", url, **settings) as brain,
    ):
        port = metrics_port(brain.output)
        await shows(port, lambda now: now.value("brain_database_up") == 1)
        proxy.swallow()
        down = await shows(port, lambda now: now.value("brain_database_up") == 0)
        assert down.value("brain_memory_bytes", process="1")
        await shows(port, lambda now: (now.value("brain_tick_lag_seconds") or 0) > 2)
        proxy.restore()  # otherwise its end would wait for the database
