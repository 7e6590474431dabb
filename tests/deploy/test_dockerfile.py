"""
The image, as far as it can be checked without a Docker engine.

What the builder runs is run in a folder that stands for its root, and what it makes serves as it
does in a container: as another user, without pip and the checkout, in a folder that it may not
write to. Not run: FROM, useradd, and COPY from one stage into the next.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.dockerfile import Stage, stages_of
from tests.end_to_end.brain import NOBODY, READY, ended, get, logged, running
from tests.end_to_end.test_make import INSTALL_SECONDS, UNREACHABLE

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "Dockerfile"
HADOLINT = Path(sys.executable).with_name("hadolint")


@pytest.fixture
def builder() -> Stage:
    return stages_of(DOCKERFILE)[0]


@pytest.fixture
def runtime() -> Stage:
    return stages_of(DOCKERFILE)[-1]


async def test_hadolint_finds_nothing() -> None:
    linted = await ended([str(HADOLINT), str(DOCKERFILE)])
    assert (linted.status, linted.stdout) == (0, "")


async def test_hadolint_finds_a_mistake(tmp_path: Path) -> None:
    file = tmp_path / "Dockerfile"
    file.write_text(DOCKERFILE.read_text().replace('CMD ["brain", "serve"]', "CMD brain serve"))
    linted = await ended([str(HADOLINT), str(file)])
    assert linted.status == 1
    assert "DL3025" in linted.stdout


def test_the_image_has_what_the_builder_has_made_and_nothing_else(
    builder: Stage, runtime: Stage
) -> None:
    assert builder.image == runtime.image
    assert runtime.all("COPY") == [f"--from={builder.name} /opt/brain /opt/brain"]
    assert [run.split()[0] for run in runtime.all("RUN")] == ["useradd"]


def test_the_user_of_the_image_is_not_root(runtime: Stage) -> None:
    user = runtime.last("USER")
    assert int(user) >= 10_000
    assert f"--uid {user} " in runtime.last("RUN")


def test_the_builder_gets_what_the_docker_ignore_file_admits(builder: Stage) -> None:
    admitted = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    copied = [source for copy in builder.all("COPY") for source in copy.split()[:-1]]
    assert sorted(copied) == sorted(admitted)


@pytest.fixture
def root() -> Iterator[Path]:
    """A folder that stands for the root of the builder, and that every user may read."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def python_for_all() -> str:
    """Return a Python that every user can run: that of this one may lie in a closed home."""
    for python in (f"{sys.base_prefix}/bin/python3", "/usr/bin/python3"):
        try:
            command = [python, "-c", "import ssl, venv"]
            subprocess.run(command, check=True, cwd="/", user=NOBODY, group=NOBODY, extra_groups=[])
        except (OSError, subprocess.CalledProcessError):
            continue
        return python
    pytest.skip("there is no Python that another user can run")


def copy_sources(builder: Stage, root: Path) -> Path:
    """Copy what the builder copies; return the folder, which is below `root`."""
    sources = root / builder.last("WORKDIR").strip("/")
    sources.mkdir()
    for copy in builder.all("COPY"):
        *names, target = copy.split()
        for name in names:
            if (ROOT / name).is_dir():
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(ROOT / name, sources / target, ignore=ignored)
            else:
                shutil.copy2(ROOT / name, sources / target)
    shims = root / "shims"
    shims.mkdir()
    pip = f"{sys.base_prefix}/bin/python3 -m pip"
    for name, command in {"python": python_for_all(), "pip": pip}.items():
        (shims / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        (shims / name).chmod(0o755)
    return sources


def carry_out(run: str, root: Path, sources: Path) -> subprocess.CompletedProcess[str]:
    """Do what a RUN of the builder does, in `root`."""
    # Where pip finds its index on this machine.
    kept = {name: value for name, value in os.environ.items() if "PIP_" in name or "proxy" in name}
    path = {"PATH": f"{root}/shims:/usr/bin:/bin", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    # Of this machine's cache the image has nothing, and so the Dockerfile has no use for one.
    command = run.replace(" --no-cache-dir", "")
    command = re.sub(r"(?<![\w.])/(opt|wheels)\b", rf"{root}/\1", command)
    done = subprocess.run(
        ["sh", "-c", f"umask 022; {command}"],
        cwd=sources,
        env={**kept, **path},
        capture_output=True,
        text=True,
        timeout=INSTALL_SECONDS,
    )
    if done.returncode and UNREACHABLE.search(done.stderr):
        pytest.skip("the package index cannot be reached")
    return done


def build(builder: Stage, root: Path) -> None:
    """Do what the builder does, in `root`."""
    sources = copy_sources(builder, root)
    for run in builder.all("RUN"):
        done = carry_out(run, root, sources)
        assert done.returncode == 0, done.stderr


@pytest.mark.timeout(2 * INSTALL_SECONDS)
def test_what_builds_the_wheel_is_constrained_too(builder: Stage, root: Path) -> None:
    sources = copy_sources(builder, root)
    constraints = sources / "constraints.txt"
    other = re.sub(r"^hatchling==.*", "hatchling==1.27.0", constraints.read_text(), flags=re.M)
    constraints.write_text(other)

    done = carry_out(builder.all("RUN")[0], root, sources)

    # pyproject.toml asks for the version that the constraints of the repository have.
    assert done.returncode != 0
    assert "The user requested (constraint) hatchling==1.27.0" in done.stderr + done.stdout


@pytest.mark.timeout(2 * INSTALL_SECONDS)
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
async def test_what_the_builder_makes_serves_as_the_user_of_the_image(
    builder: Stage, runtime: Stage, root: Path, database: str
) -> None:
    build(builder, root)
    shutil.rmtree(root / "src")
    shutil.rmtree(root / "wheels")
    assert not list(root.glob("opt/brain/bin/pip*"))
    environment = {
        **runtime.environment,
        "PATH": f"{root}/opt/brain/bin:/usr/bin:/bin",
        "PYTHONPATH": "",
        "HOME": "/nonexistent",
        "BRAIN_DATABASE_URL": database,
        "BRAIN_ALLOWED_HOSTS": "brain.example.org",
        "BRAIN_PORT": "0",
    }
    folder = root / "closed"
    folder.mkdir()
    program, *arguments = runtime.command
    command = (str(root / "opt/brain/bin" / program), *arguments)
    output = root / "brain.log"
    async with running(command, output, environment, cwd=folder, is_nobody=True) as process:
        port = int((await logged(output, READY, process))[1])
        assert (await get(f"http://127.0.0.1:{port}/readyz"))[0] == 200
        python, *check = runtime.health_check
        healthy = [str(root / "opt/brain/bin" / python), *check]
        assert (await ended(healthy, {**environment, "BRAIN_PORT": str(port)})).status == 0
        assert (await ended(healthy, {**environment, "BRAIN_PORT": "1"})).status == 1
        plain = {**environment, "BRAIN_PORT": "", "PORT": str(port)}
        assert (await ended(healthy, plain)).status == 0
        assert (await ended(healthy, {**plain, "BRAIN_PORT": "1"})).status == 1
        process.terminate()
        assert await process.wait() == 0
    assert list(folder.iterdir()) == []
