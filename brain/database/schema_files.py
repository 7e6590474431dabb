"""
The SQL of a schema: that of the core, or of a system.

A schema is a folder. Its files in `schema/` (or `schema.sql`) create everything as it is today, may
be applied again at any time, and hold each function once. `upgrades/NNNN_name.sql` hold what cannot
be applied again: each is applied once and leads from one release to the next.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path

import brain
from brain.database.revisions import REVISIONS, Revision
from brain.errors import MigrationError

UPGRADE = re.compile(r"(?P<number>\d{4})_(?P<name>[a-z0-9_]+)\.sql")
CORE = "brain"
"""The name of the core's schema."""
REPLAYED = 0
"""The number under which the files that may be applied again are recorded."""
LOCKS = re.compile(r"^-- Locks: (.+)$", re.MULTILINE)
NO_LOCKS = "none"


@dataclass(frozen=True, slots=True)
class Script:
    """A file of SQL."""

    name: str
    sql: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Step:
    """What is applied in one transaction: an upgrade, or all files that may be applied again."""

    schema: str
    number: int
    name: str
    scripts: tuple[Script, ...] = field(repr=False)

    @property
    def sha256(self) -> str:
        texts = "".join(f"{script.name}\n{script.sql}\n" for script in self.scripts)
        return hashlib.sha256(texts.encode()).hexdigest()

    @property
    def is_upgrade(self) -> bool:
        return self.number != REPLAYED

    @property
    def locks(self) -> tuple[str, ...] | None:
        """
        The locks on existing tables and views that others may wait for, as the files declare them.

        Each is a name and a mode: `brain.events ACCESS EXCLUSIVE`. None for an upgrade that
        declares nothing, not even that there are none.
        """
        declared = [line for script in self.scripts for line in LOCKS.findall(script.sql)]
        if self.is_upgrade and not declared:
            return None
        return tuple(line for line in declared if line != NO_LOCKS)

    def __str__(self) -> str:
        return f"{self.schema} {self.name}" if self.is_upgrade else self.schema


@dataclass(frozen=True, slots=True)
class Schema:
    """The SQL of the core, or of a system, or of tables that several systems share."""

    name: str
    folder: Path
    revisions: tuple[Revision, ...] = field(default=REVISIONS, repr=False)
    """A package with releases of its own has revisions of its own, too."""

    @property
    def revision(self) -> Revision:
        """The one that the files have."""
        return self.revisions[-1]

    @property
    def serves_since(self) -> str:
        """The oldest release that works on a database with these files."""
        served = [one for one in self.revisions if one.number >= self.revision.serves]
        return served[0].since

    def current(self) -> Step:
        """Return the files that create everything as it is today."""
        files = sorted((self.folder / "schema").glob("*.sql"))
        files = files or list(self.folder.glob("schema.sql"))
        if not files:
            raise MigrationError(f"{self.folder} has neither schema/*.sql nor schema.sql")
        return Step(self.name, REPLAYED, "schema", tuple(map(read_script, files)))

    def upgrades(self) -> list[Step]:
        """Return the upgrades, in order; their numbers run from 1 without a gap."""
        steps = []
        for file in sorted((self.folder / "upgrades").glob("*.sql")):
            match = UPGRADE.fullmatch(file.name)
            if match is None:
                raise MigrationError(f"{file} is not named NNNN_name.sql")
            steps.append(Step(self.name, int(match["number"]), file.stem, (read_script(file),)))
        numbers = [step.number for step in steps]
        if numbers != list(range(1, len(numbers) + 1)):
            raise MigrationError(
                f"the files in {self.folder / 'upgrades'} do not count from 0001 upwards: {numbers}"
            )
        return steps


def core_schema() -> Schema:
    """Return the core's schema: within the package in a wheel, beside it in the repository."""
    package = Path(brain.__file__).parent
    in_the_wheel, in_the_repository = package / "migrations", package.parent / "migrations"
    return Schema(CORE, in_the_wheel if in_the_wheel.is_dir() else in_the_repository)


def read_script(file: Path) -> Script:
    return Script(file.name, file.read_text(encoding="utf-8"))
