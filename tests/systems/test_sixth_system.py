"""A separate package adds a system, without a change in Brain."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest
from websockets.asyncio.client import connect

from brain.app import create_app
from brain.errors import UsageError
from brain.settings import Settings
from brain.system import installed_systems, select_systems
from tests.systems.sixth_system import Sixth
from tests.transport.served import served

ROOT = Path(__file__).parent.parent.parent


async def test_its_clients_are_served_beside_those_of_the_core(
    database: str, connection: asyncpg.Connection
) -> None:
    app = create_app(database, Settings(), [Sixth()])
    async with (
        served(app) as (port, _),
        connect(f"ws://127.0.0.1:{port}/ws/short/tasks") as short,
        connect(f"ws://127.0.0.1:{port}/ws?channel=tasks") as plain,
    ):
        assert "Connected to Brain" in str(await plain.recv())
        await short.send("hello")
        assert await short.recv() == "not understood: hello"
        await connection.execute("INSERT INTO tasks (id) VALUES ('a')")
        assert await short.recv() == "INSERT ['a']"
        assert '"tasks_inserted"' in str(await plain.recv())


def test_an_installed_package_registers_it_by_an_entry_point(tmp_path: Path) -> None:
    metadata = tmp_path / "sixth-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: sixth\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[brain.systems]\nsixth = tests.systems.sixth_system:Sixth\n"
    )
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    listed = subprocess.run(
        [sys.executable, "-m", "brain", "systems", "--systems", "sixth,cecelia"],
        env={**os.environ, "PYTHONPATH": path, "BRAIN_DATABASE_URL": "postgresql://nowhere/db"},
        capture_output=True,
        text=True,
        timeout=60,
    )

    lines = listed.stdout.splitlines()
    assert [line.split()[:2] for line in lines if line.startswith("on")] == [
        ["on", "cecelia"],
        ["on", "sixth"],
    ]


def test_an_unknown_system_is_refused_with_the_names_that_there_are() -> None:
    installed = installed_systems()

    assert select_systems(["all"], installed) == [*installed.values()]
    assert select_systems(["workflows", "cecelia"], installed) == [
        installed["workflows"],
        installed["cecelia"],
    ]
    with pytest.raises(UsageError, match=r"no system cecilia: .*cecelia"):
        select_systems(["cecilia"], installed)
