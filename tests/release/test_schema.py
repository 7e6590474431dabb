"""The checksum of the schema, by which a released revision is known again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import brain
from brain.database.schema_files import core_schema
from release import schema


def test_a_changed_file_gives_another_checksum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = schema.schema_sha256()
    copy = tmp_path / "migrations"
    shutil.copytree(core_schema().folder, copy)
    monkeypatch.setattr(brain, "__file__", str(tmp_path / "brain" / "__init__.py"))
    assert schema.schema_sha256() == before

    with (copy / "schema" / "18_tickets.sql").open("a") as file:
        file.write("\n")

    assert schema.schema_sha256() != before
