from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from brain.doctor import host, nodes
from brain.doctor.host import OpenFiles
from tests.doctor.examining import found

NODE = """
    INSERT INTO brain.nodes (id, name, clients, seen_at)
    VALUES (gen_random_uuid(), $1, 0, clock_timestamp() + interval '4 s')
"""
LIMIT = 64
# Like a node that has so many clients; its command line has the word by which it is known.
PROGRAM = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
files = [os.open("/dev/null", os.O_RDONLY) for _ in range(int(sys.argv[2]))]
print("open", flush=True)
sys.stdin.read()
"""

USES = [
    (100, 100_000, "ok"),
    (85_000, 100_000, "warning"),
    (99_980, 100_000, "failure"),
    (10, 1024, "warning"),
]


@pytest.mark.parametrize(("used", "limit", "verdict"), USES)
def test_open_files_that_are_used_up_are_named(used: int, limit: int, verdict: str) -> None:
    processes = [OpenFiles("one", 1, 1_000_000), OpenFiles("two", used, limit)]
    finding = host.of_open_files(processes, most_connections=50_000)

    assert finding.verdict == verdict
    assert "two" in finding.text or verdict == "ok"
    if verdict != "ok":
        assert "LimitNOFILE" in str(finding.way_out)


@pytest.fixture
def process_with_files() -> Iterator[subprocess.Popen[str]]:
    """A process of which nearly all of 64 files are open."""
    command = [sys.executable, "-c", PROGRAM, "brain", str(LIMIT - 8)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "open\n"
    yield process
    process.communicate("")


async def test_the_open_files_of_a_node_on_this_machine_are_counted(
    core_connection: asyncpg.Connection,
    core_database: str,
    process_with_files: subprocess.Popen[str],
) -> None:
    await core_connection.execute(NODE, f"{socket.gethostname()} {process_with_files.pid}")
    finding = await found(host.open_files, nodes.alive, database_url=core_database)

    assert finding.verdict == "failure"
    assert "open files are used up" in finding.text
    (process,) = finding.facts["processes"]
    assert process["limit"] == LIMIT
    assert process["open_files"] >= LIMIT - 8


async def test_without_a_node_on_this_machine_open_files_are_not_checked(
    core_connection: asyncpg.Connection, core_database: str
) -> None:
    await core_connection.execute(NODE, "elsewhere 17")
    finding = await found(host.open_files, nodes.alive, database_url=core_database)

    assert finding.verdict == "not checked"
    assert "--metrics-url" in str(finding.way_out)


async def test_the_memory_of_this_machine_and_of_its_nodes_is_seen(
    core_connection: asyncpg.Connection, core_database: str
) -> None:
    alone = await found(host.memory)

    assert alone.verdict in ("ok", "warning")
    assert 0 < alone.facts["available_bytes"] < alone.facts["total_bytes"]
    assert (host.resident_bytes(os.getpid()) or 0) > 1024**2


async def test_memory_that_is_nearly_used_up_is_a_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(host, "memory_of_machine", lambda: (1000 * 1024**2, 10 * 1024**2))
    finding = await found(host.memory)

    assert finding.verdict == "warning"
    assert "BRAIN_RING_BYTES" in str(finding.way_out)


def test_what_caches_files_counts_as_available_in_a_control_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = tmp_path / "brain.service"
    group.mkdir()
    (group / "memory.max").write_text("1000\n")
    (group / "memory.current").write_text("990\n")
    (group / "memory.stat").write_text("anon 300\ninactive_anon 5\ninactive_file 600\n")
    process = tmp_path / "17"
    process.mkdir()
    (process / "cgroup").write_text("0::/brain.service\n")
    monkeypatch.setattr(host, "CGROUPS", tmp_path)
    monkeypatch.setattr(host, "PROC", tmp_path)

    assert host.memory_of_control_group(17) == (1000, 610)
