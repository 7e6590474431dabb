"""Faults of a real Brain, found by its metrics and on its machine."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import asyncpg
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from brain.doctor import (
    host,
    http,
    metrics,
    nodes,
    processes,
    running_clients,
    running_processes,
)
from brain.doctor.check import Check
from brain.doctor.finding import Finding
from tests.doctor.examining import found
from tests.end_to_end.brain import PATIENCE_SECONDS, RunningBrain
from tests.end_to_end.test_workers import running_workers, started
from tests.metrics.exposed import metrics_port

FLOOD = "SELECT brain.publish('flood', 'drop', $1::text::jsonb) FROM generate_series(1, 20)"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")


@pytest.fixture(scope="module")
def brain_settings() -> dict[str, str]:
    return {"BRAIN_METRICS_PORT": "0", "BRAIN_RING_BYTES": "200000", "BRAIN_RING_SECONDS": "1"}


def by_metrics(brain: RunningBrain, check: Check) -> Awaitable[Finding]:
    url = f"http://localhost:{metrics_port(brain.output)}/metrics"
    return found(check, metrics.reachable, metrics_url=url)


async def becomes(
    examine: Callable[[], Awaitable[Finding]], is_so: Callable[[Finding], bool]
) -> Finding:
    """Return the first finding of which that holds."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not is_so(finding := await examine()):
            await asyncio.sleep(0.2)
    return finding


CHECKS = (
    running_processes.workers,
    running_processes.database,
    running_processes.open_files,
    running_processes.memory,
    running_processes.event_loop,
    running_clients.connections,
    running_clients.refusals,
    running_clients.slow_clients,
    running_clients.keys,
)


async def test_the_metrics_of_a_sound_brain_have_what_every_check_looks_at(
    shared_brain: RunningBrain,
) -> None:
    for check in CHECKS:
        # It has just begun, and its metrics are those of a second ago.
        await becomes(
            lambda check=check: by_metrics(shared_brain, check),  # type: ignore[misc]
            lambda finding: finding.verdict in ("ok", "warning"),
        )


async def test_an_origin_that_is_refused_is_counted_with_the_setting(
    shared_brain: RunningBrain,
) -> None:
    with pytest.raises(InvalidStatus):
        await connect(
            f"ws://localhost:{shared_brain.port}/ws/v1",
            additional_headers={"Origin": "https://other.example.org"},
            proxy=None,
        )
    finding = await becomes(
        lambda: by_metrics(shared_brain, running_clients.refusals),
        lambda finding: "origin" in finding.facts.get("refused", {}),
    )

    assert finding.verdict == "warning"
    assert "BRAIN_ALLOWED_ORIGINS" in str(finding.way_out)


@contextmanager
def files_used_up(brain: RunningBrain) -> Iterator[None]:
    """Leave a Brain no file to open."""
    pid = brain.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    used = len(os.listdir(f"/proc/{pid}/fd"))
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (used, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


async def test_open_files_that_are_used_up_are_named_on_the_machine_and_by_metrics(
    shared_brain: RunningBrain, shared_database: str
) -> None:
    with files_used_up(shared_brain):
        here = await found(host.open_files, nodes.alive, database_url=shared_database)

    assert here.verdict == "failure"
    assert "open files are used up" in here.text
    assert "LimitNOFILE" in str(here.way_out)


async def test_a_process_that_is_stopped_hangs_for_the_database_and_its_clients(
    shared_brain: RunningBrain, shared_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "ANSWER_SECONDS", 1.0)
    process = shared_brain.process
    process.send_signal(signal.SIGSTOP)
    try:
        by_database = await becomes(
            lambda: found(nodes.alive, database_url=shared_database),
            lambda finding: finding.verdict == "failure",
        )
        by_url = await found(http.http, url=shared_brain.http)
    finally:
        process.send_signal(signal.SIGCONT)
    after = await becomes(
        lambda: found(nodes.alive, database_url=shared_database),
        lambda finding: finding.verdict == "ok",
    )

    assert "it hangs" in by_database.text
    assert f"kill -9 {process.pid}" in str(by_database.way_out)
    assert by_url.verdict == "failure"
    assert "does not answer" in by_url.text
    assert after.verdict == "ok"


async def test_one_of_several_workers_that_hangs_is_named_without_metrics_and_by_them(
    tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "YOUNG_SECONDS", 0.0)
    options = ("--database-url", database)
    async with running_workers(tmp_path, *options, BRAIN_METRICS_PORT="0") as brain:
        _, stopped = started(brain)
        await becomes(
            lambda: found(nodes.alive, database_url=database),
            lambda finding: finding.verdict == "ok" and len(finding.facts["nodes"]) == 2,
        )
        os.kill(stopped, signal.SIGSTOP)
        by_database = await becomes(
            lambda: found(nodes.alive, database_url=database),
            lambda finding: finding.verdict == "failure" and len(finding.facts["nodes"]) == 1,
        )
        of_workers = await becomes(
            lambda: by_metrics(brain, running_processes.workers),
            lambda finding: finding.verdict != "ok",
        )
        os.kill(stopped, signal.SIGKILL)

    assert by_database.facts["hung"] == [stopped]
    assert "hangs" in of_workers.text or "1 that hung" in of_workers.text


@asynccontextmanager
async def client_that_does_not_read(brain: RunningBrain) -> AsyncIterator[None]:
    reader, writer = await asyncio.open_connection("localhost", brain.port, limit=1024)
    writer.write(
        b"GET /ws?channel=flood&cursor= HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        b"Sec-WebSocket-Version: 13\r\n\r\n"
    )
    await reader.readuntil(b"\r\n\r\n")
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    try:
        yield
    finally:
        writer.transport.abort()


async def test_a_client_that_reads_too_slowly_is_named(
    shared_brain: RunningBrain, shared_database: str
) -> None:
    connection = await asyncpg.connect(shared_database)
    data = json.dumps({"text": "x" * 50_000})
    async with client_that_does_not_read(shared_brain):

        async def flooded() -> Finding:
            await connection.execute(FLOOD, data)
            return await by_metrics(shared_brain, running_clients.slow_clients)

        finding = await becomes(flooded, lambda finding: finding.verdict == "warning")
    await connection.close()

    assert "read too slowly" in finding.text
    assert "Slow consumers" in str(finding.way_out)
