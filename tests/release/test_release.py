"""What `make dist` builds: the same bytes each time, and a Brain that needs nothing else."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
import tarfile
import zipfile
from pathlib import Path

import asyncpg
import pytest

import brain
from brain.database.schema_files import core_schema
from release.dist import ROOT
from tests.clients.commands import done
from tests.end_to_end.brain import READY, Ended, RunningBrain, ended, logged, message, running
from tests.matrix import PYTHONS, find_pythons
from tests.node_packages import node_packages

__all__ = ["node_packages"]

SECONDS = 400.0
UNREACHABLE = re.compile("NewConnectionError|NameResolutionError|ConnectTimeoutError")
PSQL = re.compile(r'psql -h localhost( -p (\d+))? -U cecelia cecelia -c "(UPDATE .*?)"')

pytestmark = [
    pytest.mark.timeout(2 * SECONDS),
    pytest.mark.skipif(
        shutil.which("git") is None or not (ROOT / ".git").exists(), reason="needs git's history"
    ),
]


def reached(found: Ended) -> Ended:
    """Return what is left of a command that succeeded; skip the test if it reached no registry."""
    if found.status and UNREACHABLE.search(found.stdout + found.stderr):
        pytest.skip("pip cannot reach its registry")
    assert found.status == 0, found
    return found


async def built(outdir: Path, **environment: str) -> Path:
    command = (sys.executable, "-m", "release.dist", "--outdir", str(outdir))
    reached(await ended(command, environment, cwd=ROOT, patience_seconds=SECONDS))
    return outdir


@pytest.fixture(scope="module")
async def release(node_packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with what `make dist` builds of the last commit."""
    folder = tmp_path_factory.mktemp("release")
    return await built(folder / "dist", NODE_CLIENT_PACKAGES=str(node_packages))


@pytest.fixture(scope="module")
async def environment(release: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin of an environment with the wheel, and with the PostgreSQL that it starts."""
    folder = tmp_path_factory.mktemp("environment")
    await done(sys.executable, "-m", "venv", folder, cwd=folder)
    (wheel,) = release.glob("*.whl")
    install = ("install", "--quiet", "--disable-pip-version-check", "-c", ROOT / "constraints.txt")
    command = (folder / "bin" / "python", "-m", "pip", *install, f"{wheel}[embedded]")
    reached(await ended([str(word) for word in command], cwd=folder, patience_seconds=SECONDS))
    return folder / "bin"


async def test_a_commit_is_built_to_the_same_bytes_elsewhere_and_later(
    release: Path, node_packages: Path, tmp_path: Path
) -> None:
    (tmp_path / "tmp").mkdir()
    elsewhere = {"TMPDIR": str(tmp_path / "tmp"), "TZ": "Asia/Tokyo", "PYTHONHASHSEED": "7"}
    former = os.umask(0o077)
    try:
        again = await built(tmp_path / "dist", NODE_CLIENT_PACKAGES=str(node_packages), **elsewhere)
    finally:
        os.umask(former)

    first, second = (
        {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}
        for folder in (release, again)
    )
    assert first == second


async def test_a_release_is_a_wheel_an_sdist_and_an_npm_package_with_their_checksums(
    release: Path,
) -> None:
    version = brain.__version__
    names = [
        f"brain-{version}-py3-none-any.whl",
        f"brain-{version}.tar.gz",
        f"brain-realtime-{version}.tgz",
    ]

    assert sorted(file.name for file in release.iterdir()) == ["SHA256SUMS", *names]
    checked = await done("sha256sum", "--check", "SHA256SUMS", cwd=release)
    assert checked == "".join(f"{name}: OK\n" for name in names)


def test_the_wheel_has_the_schema_the_pages_and_the_types(release: Path) -> None:
    (wheel,) = release.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())

    assert {
        f"brain/migrations/schema/{one.name}" for one in core_schema().current().scripts
    } < names
    assert {"brain/py.typed", "brain/web/static/client/brain.js"} < names
    assert {name.partition("/")[0] for name in names} == {
        "brain",
        f"brain-{brain.__version__}.dist-info",
    }


async def test_the_sdist_builds_the_same_wheel(release: Path, tmp_path: Path) -> None:
    (wheel,), (sdist,) = release.glob("*.whl"), release.glob("brain-*.tar.gz")
    # That of the commit, which its times in the sdist are.
    with tarfile.open(sdist) as archive:
        epoch = str(int(archive.getmembers()[0].mtime))
    command = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", str(sdist))
    reached(
        await ended(command, {"SOURCE_DATE_EPOCH": epoch}, cwd=tmp_path, patience_seconds=SECONDS)
    )

    assert (tmp_path / wheel.name).read_bytes() == wheel.read_bytes()


async def test_a_brain_in_an_empty_environment_starts_its_postgresql_and_serves(
    environment: Path, tmp_path: Path
) -> None:
    output = tmp_path / "brain.log"
    command = (str(environment / "brain"), "serve", "--samples", "--ephemeral", "--port", "0")
    async with running(command, output, {"PYTHONPATH": ""}, cwd=tmp_path) as process:
        port = int((await logged(output, READY, process))[1])
        typed = PSQL.search(output.read_text())
        assert typed, output.read_text()
        async with RunningBrain(process, port, output).client() as client:
            server = f"postgresql://cecelia@localhost:{typed[2] or 5432}/cecelia"
            connection = await asyncpg.connect(server)
            await connection.execute(typed[3])
            await connection.close()
            assert (await message(client))["type"] == "run_update"
        process.terminate()
        assert await process.wait() == 0
    assert "Traceback" not in output.read_text()


async def test_the_matrix_tries_what_is_there_and_names_what_is_missing(release: Path) -> None:
    (wheel,) = release.glob("*.whl")
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    missing = sorted(set(PYTHONS) - find_pythons(PYTHONS).keys())[-1:]
    options = ("--wheel", str(wheel), "--postgres", "18", "--python", here, *missing)
    command = (sys.executable, "-m", "tests.matrix", *options)

    found = reached(await ended(command, cwd=ROOT, patience_seconds=SECONDS))

    assert f"Python {here}, PostgreSQL 18: ok\n" in found.stdout
    assert found.stdout.endswith("\n1 of 1 combinations work\n")
    for version in missing:
        assert f"this machine does not have it: Python {version}\n" in found.stdout
