"""Other versions of Brain: copies of this one, with changes to its schema."""

from __future__ import annotations

import shutil
from pathlib import Path

import brain
from brain.database.schema_files import core_schema

# What the newer version does to the log and to the presence of nodes.
UPGRADE = """-- An upgrade, for a test.
-- Locks: brain.events ACCESS EXCLUSIVE
-- Locks: brain.events_0 ACCESS EXCLUSIVE
-- Locks: brain.events_1 ACCESS EXCLUSIVE
-- Locks: brain.events_2 ACCESS EXCLUSIVE
-- Locks: brain.events_3 ACCESS EXCLUSIVE
ALTER TABLE brain.events ADD COLUMN note text;
"""
CHANGES = {
    "schema/02_log.sql": ("    old_rule_values text  ", "    old_rule_values text, note text  "),
    "schema/12_presence.sql": (
        "    SELECT seen_at BETWEEN clock_timestamp()",
        "    SELECT /* newer */ seen_at BETWEEN clock_timestamp()",
    ),
}
NEWER_BODY = """
    SELECT prosrc LIKE '%/* newer */%' FROM pg_proc
     WHERE proname = 'is_recent' AND pronamespace = 'brain'::regnamespace
"""


def newer_version(folder: Path, *, version: str = "9.0.0", serves: int = 1) -> dict[str, str]:
    """Make a newer version in a folder; return the environment in which `python -m` runs it."""
    schema = core_schema()
    shutil.copytree(
        Path(brain.__file__).parent,
        folder / "brain",
        ignore=shutil.ignore_patterns("__pycache__", "migrations"),
    )
    shutil.copytree(schema.folder, folder / "migrations")
    edit(
        folder / "brain" / "__init__.py",
        f'__version__ = "{brain.__version__}"',
        f'__version__ = "{version}"',
    )
    number = schema.revision.number + 1
    with (folder / "brain" / "database" / "revisions.py").open("a") as file:
        revision = f'Revision({number}, since="Brain {version}", serves={serves})'
        file.write(f"REVISIONS = (*REVISIONS, {revision})\n")
    for name, (old, new) in CHANGES.items():
        edit(folder / "migrations" / name, old, new)
    upgrade = f"{len(schema.upgrades()) + 1:04}_note.sql"
    (folder / "migrations" / "upgrades" / upgrade).write_text(UPGRADE)
    # Without the second, the folder in which it is started would come first.
    return {"PYTHONPATH": str(folder), "PYTHONSAFEPATH": "1"}


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert text.count(old) == 1, f"{file} has {old!r} {text.count(old)} times"
    file.write_text(text.replace(old, new))
