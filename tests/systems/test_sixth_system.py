"""A separate package adds a system, without a change in Brain."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest
from websockets.asyncio.client import connect

from brain.app import build_app
from brain.errors import UsageError
from brain.settings import Settings
from brain.system import installed_systems, select_systems
from tests.description.documents import application, asyncapi
from tests.systems.sixth_system import Sixth
from tests.transport.served import served

ROOT = Path(__file__).parent.parent.parent


async def test_its_clients_are_served_beside_those_of_the_core(
    database: str, connection: asyncpg.Connection
) -> None:
    app = build_app(database, Settings(), [Sixth()])
    async with (
        served(app) as (port, _),
        connect(f"ws://127.0.0.1:{port}/ws/short/tasks") as short,
        connect(f"ws://127.0.0.1:{port}/ws?channel=tasks") as plain,
    ):
        assert "Connected to Brain" in str(await plain.recv())
        await short.send("hello")
        assert await short.recv() == "not understood: hello"
        await connection.execute("INSERT INTO tasks (id) VALUES ('a')")
        assert await short.recv() == 'INSERT ["a"]'
        assert '"tasks_inserted"' in str(await plain.recv())


def test_its_address_is_described_beside_those_of_the_core() -> None:
    document = asyncapi(application([Sixth()]).routes)

    assert {"/ws", "/ws/short/{channel}"} <= {
        one["address"] for one in document["channels"].values()
    }
    assert document["components"]["messages"]["SystemsShort"] == {
        "name": "Short",
        "summary": "The operation, and the key of the row.",
        "contentType": "text/plain",
        "payload": {"$ref": "#/components/schemas/SystemsShort"},
    }


def brain(folder: Path, *arguments: str, **entry_points: str) -> subprocess.CompletedProcess[str]:
    """Run `brain` where a package is installed that has these entry points."""
    metadata = folder / "sixth-1.0.dist-info"
    metadata.mkdir(exist_ok=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: sixth\nVersion: 1.0\n")
    lines = [f"{name} = {value}\n" for name, value in entry_points.items()]
    (metadata / "entry_points.txt").write_text("".join(["[brain.systems]\n", *lines]))
    path = os.pathsep.join([str(folder), str(ROOT)])
    return subprocess.run(
        [sys.executable, "-m", "brain", *arguments],
        env={**os.environ, "PYTHONPATH": path, "BRAIN_DATABASE_URL": "postgresql://nowhere/db"},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_an_installed_package_registers_it_by_an_entry_point(tmp_path: Path) -> None:
    listed = brain(
        tmp_path, "systems", "--systems", "sixth,cecelia", sixth="tests.systems.sixth_system:Sixth"
    )

    lines = listed.stdout.splitlines()
    assert [line.split()[:2] for line in lines if line.startswith("on")] == [
        ["on", "cecelia"],
        ["on", "sixth"],
    ]


BROKEN = {
    "raises": ("tests.systems.no_such_module:Sixth", "ModuleNotFoundError: No module named"),
    "number": ("sys:maxsize", "sys:maxsize is no System"),
    "seventh": ("tests.systems.sixth_system:Sixth", "tests.systems.sixth_system:Sixth is named"),
}


def test_a_broken_package_stops_only_those_who_switch_its_system_on(tmp_path: Path) -> None:
    entry_points = {name: value for name, (value, _) in BROKEN.items()}

    ended = brain(tmp_path, "systems", "--systems", "all", **entry_points)

    listed, errors = ended.stdout.splitlines(), ended.stderr
    assert len([line for line in listed if line.startswith("on ")]) == len(installed_systems())
    for name, (_, problem) in BROKEN.items():
        (line,) = [line for line in listed if line.startswith(f"off  {name} ")]
        assert f"cannot be loaded: {problem}" in line
        assert f"brain: the system {name} cannot be loaded: {problem}" in errors
        refused = brain(tmp_path, "migrate", "--systems", f"cecelia,{name}", **entry_points)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert refused.stderr.startswith(f"brain: the system {name} cannot be loaded: {problem}")
        assert len(refused.stderr.splitlines()) == 1


def test_an_unknown_system_is_refused_with_the_names_that_there_are() -> None:
    installed = installed_systems()

    assert select_systems(["all"], installed) == [*installed.values()]
    assert select_systems(["workflows", "cecelia"], installed) == [
        installed["workflows"],
        installed["cecelia"],
    ]
    assert select_systems(["all", "cecelia"], installed) == [*installed.values()]
    for names in (["cecilia"], ["all", "cecilia"]):
        with pytest.raises(UsageError, match=r"unknown system cecilia: .*cecelia"):
            select_systems(names, installed)
