"""The Python wheel: the server, the client and the command line in an empty environment."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import asyncpg
import pytest

from brain.web.client import FOLDER, MODULES
from tests.clients.commands import done
from tests.clients.orders import ORDERS
from tests.end_to_end.brain import RunningBrain, ended

ROOT = Path(__file__).parents[2]
INSTALL_SECONDS = 200.0
UNREACHABLE = ("NewConnectionError", "NameResolutionError", "ConnectTimeoutError")
LISTEN = """
import asyncio, sys
from brain.client import Brain

async def first():
    async with Brain(sys.argv[1]) as brain:
        async for change in brain.subscribe("orders", snapshot=True):
            if change.op == "snapshot":
                print(change.row)
                return

asyncio.run(first())
"""

pytestmark = pytest.mark.timeout(400)


async def pip(*arguments: str | Path, python: str | Path = sys.executable) -> None:
    """Run pip to its end; skip the test if it reaches no registry."""
    options = ("--quiet", "--disable-pip-version-check", "--no-input")
    command = [str(word) for word in (python, "-m", "pip", *arguments, *options)]
    found = await ended(command, cwd=ROOT, patience_seconds=INSTALL_SECONDS)
    if found.status != 0 and any(name in found.stderr for name in UNREACHABLE):
        pytest.skip("pip cannot reach its registry")
    assert found.status == 0, found.stderr


@pytest.fixture(scope="module")
async def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    await pip("wheel", ".", "--no-deps", "--wheel-dir", folder)
    (wheel,) = folder.glob("brain-*.whl")
    return wheel


@pytest.fixture(scope="module")
async def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel, and what it declares to need; return its bin."""
    folder = tmp_path_factory.mktemp("environment")
    await done(sys.executable, "-m", "venv", folder, cwd=folder)
    constraints = ROOT / "constraints.txt"
    await pip("install", "-c", constraints, wheel, python=folder / "bin" / "python")
    return folder / "bin"


def test_the_wheel_has_what_brain_serves_and_applies(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    names = archive.namelist()

    for name in MODULES:
        assert archive.read(f"brain/web/static/client/{name}") == (FOLDER / name).read_bytes()
    assert {"brain/py.typed", "brain/migrations/schema/07_watch_table.sql"} <= set(names)
    assert not [name for name in names if name.startswith(("tests/", "clients/", "bench/"))]


async def test_the_command_line_lists_and_explains_listen(
    environment: Path, tmp_path: Path
) -> None:
    found = await done(environment / "brain", "listen", "--help", cwd=tmp_path, PYTHONPATH="")

    assert "Usage: brain listen" in found


async def test_the_python_client_gets_rows(
    environment: Path, shared_brain: RunningBrain, shared_database: str, tmp_path: Path
) -> None:
    connection = await asyncpg.connect(shared_database)
    await connection.execute(ORDERS)
    await connection.close()

    found = await done(
        environment / "python", "-c", LISTEN, shared_brain.http, cwd=tmp_path, PYTHONPATH=""
    )

    assert found == "{'id': 1, 'status': 'open'}\n"
