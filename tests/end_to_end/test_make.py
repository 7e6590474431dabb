"""What a new user types, in a copy of this checkout."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from brain.embedded.processes import suitable_account
from tests.end_to_end.brain import (
    READY,
    RunningBrain,
    becomes,
    ended,
    get,
    logged,
    message,
    running,
)
from tests.processes import working_in
from tests.schemas import every_schema

CHECKOUT = Path(__file__).parents[2]

# An installation takes as long as the package index does.
INSTALL_SECONDS = 300

# What pip prints where it reaches no index.
UNREACHABLE = re.compile(r"No matching distribution found|Could not find a version|Max retries")

pytestmark = [
    pytest.mark.timeout(2 * INSTALL_SECONDS),
    pytest.mark.skipif(
        not all(map(shutil.which, ("make", "git", "bash"))), reason="needs make, git and bash"
    ),
]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The files of the checkout as they are now, in a folder with a space in its name."""
    listing = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
    )
    if listing.returncode:
        pytest.skip("this is no checkout of git's")
    folder = tmp_path / "a checkout"
    for name in filter(None, listing.stdout.split("\0")):
        if (CHECKOUT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CHECKOUT / name, folder / name)
    return folder


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An empty home, and a Python that is in no virtual environment."""
    (tmp_path / "home").mkdir()
    base = Path(sys.base_prefix, "bin", "python3")
    return {"HOME": str(tmp_path / "home"), "XDG_DATA_HOME": "", "PYTHON": str(base)}


@asynccontextmanager
async def make_run(
    folder: Path, environment: dict[str, str], seconds: float
) -> AsyncIterator[RunningBrain]:
    """Type `make run` in a terminal of its own, and Ctrl-C at the end."""
    output = folder.parent / "make.log"
    command = ("make", "run", "ARGS=--port 0")
    async with running(command, output, environment, cwd=folder, starts_session=True) as process:
        try:
            port = int((await logged(output, READY, process, seconds))[1])
        except AssertionError:
            if UNREACHABLE.search(output.read_text()):
                pytest.skip("the package index cannot be reached")
            raise
        except TimeoutError:
            os.killpg(process.pid, signal.SIGTERM)
            raise
        yield RunningBrain(process, port, output)
        os.killpg(process.pid, signal.SIGINT)
        await process.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="looks for what is left in /proc")
@pytest.mark.skipif(
    suitable_account().user is not None, reason="root keeps its data outside its home here"
)
async def test_make_run_sets_up_a_new_checkout_and_the_second_time_needs_no_network(
    copy: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    async with make_run(copy, environment, INSTALL_SECONDS) as first:
        text = first.output.read_text()
        assert f"  status    curl {first.http}/api/brain/status/ws\n" in text
        assert f"  listen    wscat -c ws://localhost:{first.port}/ws " in text
        assert (await get(first.http + "/api/brain/status/ws"))[0] == 200
        async with first.client() as client:
            lines = re.findall(r"^  [a-z ]{12} (\S*psql\b.*)$", text, re.M)
            types = []
            for line in lines:
                typed = await ended(["bash", "-c", line], environment)
                assert (typed.stdout, typed.stderr) == ("UPDATE 1\n", "")
                types.append((await message(client))["type"])
            assert types == ["run_update", "run_update", "run_complete", "run_failed"]
    assert "Traceback" not in first.output.read_text()
    await becomes(lambda: not working_in(tmp_path))
    assert not list(tmp_path.glob("home/**/postmaster.pid"))

    offline = {
        "PIP_INDEX_URL": "http://127.0.0.1:1/",
        "PIP_EXTRA_INDEX_URL": "",
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": "",
    }
    async with make_run(copy, environment | offline, 30) as second:
        assert "Setting up" not in second.output.read_text()
        _, tasks = await get(second.http + "/api/brain/tasks")
        assert '"run_complete"' not in tasks and '"completed"' in tasks
    await becomes(lambda: not working_in(tmp_path))


async def test_a_wheel_brings_the_schemas_along(copy: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    command = [*pip, "--no-deps", "--target", str(target), str(copy)]
    installed = await ended(command, patience_seconds=INSTALL_SECONDS)
    if installed.status and UNREACHABLE.search(installed.stderr):
        pytest.skip("the package index cannot be reached")
    assert installed.status == 0, installed.stderr
    question = (
        "import brain; from brain.system import installed_systems, schemas_of;"
        "schemas = schemas_of(installed_systems().values());"
        "print(brain.__file__, *(schema.current().sha256 for schema in schemas), sep='\\n')"
    )
    # Looked at before the checkout, which the interpreter of the tests knows too.
    path = {"PYTHONPATH": str(target)}

    answer = await ended([sys.executable, "-c", question], path, cwd=tmp_path)

    assert answer.stdout.splitlines() == [
        str(target / "brain" / "__init__.py"),
        *(schema.current().sha256 for schema in every_schema()),
    ]
    assert (target / "bin" / "brain").exists()
