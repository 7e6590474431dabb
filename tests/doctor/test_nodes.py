from __future__ import annotations

import socket
import subprocess
import sys

import asyncpg

from brain.doctor import nodes
from tests.doctor.examining import found

NODE = """
    INSERT INTO brain.nodes (id, name, clients, seen_at)
    VALUES (gen_random_uuid(), $1, 3, clock_timestamp() - make_interval(secs => $2))
"""


async def test_a_database_that_no_node_serves_says_how_to_start_one(core_database: str) -> None:
    finding = await found(nodes.alive, database_url=core_database)

    assert finding.verdict == "failure"
    assert "brain serve" in str(finding.way_out)


async def test_nodes_that_report_are_counted_with_their_clients(
    core_connection: asyncpg.Connection, core_database: str
) -> None:
    await core_connection.execute(NODE, "one 17", -4.0)
    finding = await found(nodes.alive, database_url=core_database)

    assert finding.verdict == "ok"
    assert finding.facts == {"nodes": ["one 17"], "clients": 3}


async def test_a_node_that_does_not_report_is_named(
    core_connection: asyncpg.Connection, core_database: str
) -> None:
    await core_connection.execute(NODE, "one 17", -4.0)
    await core_connection.execute(NODE, "two 18", 20.0)
    beside_another = await found(nodes.alive, database_url=core_database)
    await core_connection.execute("DELETE FROM brain.nodes WHERE name = 'one 17'")
    alone = await found(nodes.alive, database_url=core_database)

    assert beside_another.verdict == "warning"
    assert "two 18" in beside_another.text
    assert alone.verdict == "failure"
    assert "no node serves this database; the last one reported" in alone.text


async def test_a_node_that_has_started_again_under_its_name_is_not_silent(
    core_connection: asyncpg.Connection, core_database: str
) -> None:
    await core_connection.execute(NODE, f"{socket.gethostname()} 1", 20.0)
    await core_connection.execute(NODE, f"{socket.gethostname()} 1", -4.0)
    finding = await found(nodes.alive, database_url=core_database)

    assert finding.verdict == "ok"


async def test_a_process_that_runs_here_and_does_not_report_hangs(
    core_connection: asyncpg.Connection, core_database: str
) -> None:
    # Any process whose command line has the word, as that of brain serve does.
    process = subprocess.Popen([sys.executable, "-c", "input()", "brain"], stdin=subprocess.PIPE)
    try:
        await core_connection.execute(NODE, f"{socket.gethostname()} {process.pid}", 20.0)
        finding = await found(nodes.alive, database_url=core_database)
    finally:
        process.communicate(b"\n")

    assert finding.verdict == "failure"
    assert f"the process {process.pid} runs on this machine" in finding.text
    assert f"kill -9 {process.pid}" in str(finding.way_out)
