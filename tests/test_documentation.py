"""The documents say what the code does."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from brain import errors
from brain.cli.main import commands
from brain.message.resumable import Heartbeat, Reset, SnapshotPart
from brain.message.runs import Connected, Echo, RunTruncated, RunType
from brain.settings import Settings

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PROTOCOL = (ROOT / "docs" / "protocol.md").read_text()
SEEDS = (ROOT / "docs" / "seeds.md").read_text()
OPERATING = (ROOT / "docs" / "operating.md").read_text()
DOCUMENTS = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]


def closings() -> Iterator[type[errors.ConnectionEnded]]:
    yield from errors.ConnectionEnded.__subclasses__()


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_documented_with_its_default(name: str) -> None:
    variable = f"`BRAIN_{name.upper()}`"
    (row,) = [line for line in OPERATING.splitlines() if line.startswith(f"| {variable}")]

    match Settings.model_fields[name].default:
        case None if name == "database_url":
            default = "Brain's own server"
        case None | ():
            default = ""
        case bool(value):
            default = str(value).lower()
        case float(value):
            default = f"{value:g}"
        case tuple(value):
            default = " ".join(value)
        case value:
            default = str(value)
    assert f"| {default} |".replace("  ", " ") in row.replace("`", "")


def test_every_message_type_is_documented() -> None:
    for model in (Connected, RunTruncated, Echo, Heartbeat, Reset, SnapshotPart):
        assert f"`{model.model_fields['type'].default}`" in PROTOCOL
    for run_type in get_args(RunType):
        assert f"`{run_type}`" in PROTOCOL


def test_every_close_code_is_documented_and_says_whether_to_come_back() -> None:
    for error in closings():
        assert error.close_code == 1013 or 4000 <= error.close_code < 5000
        (row,) = [
            line for line in PROTOCOL.splitlines() if line.startswith(f"| {error.close_code}")
        ]
        assert ("come back" in row) == (error.close_code < 4500)


def test_the_tree_at_the_top_of_the_errors_is_the_tree() -> None:
    drawn = re.findall(r"[├└]── (\w+)", errors.__doc__ or "")
    real = [
        name
        for name, value in vars(errors).items()
        if isinstance(value, type)
        and issubclass(value, errors.BrainError)
        and value is not errors.BrainError
    ]

    assert sorted(drawn) == sorted(real)


def test_every_command_is_documented() -> None:
    for name in commands.commands:
        assert f"brain {name} " in OPERATING


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
        assert (document.parent / target).exists(), target


def test_every_make_target_that_the_documents_name_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        target
        for document in DOCUMENTS
        for target in re.findall(r"`make ([a-z-]+)", document.read_text())
    }

    assert named <= targets


def test_every_test_that_the_seeds_name_exists() -> None:
    named = set(re.findall(r"([\w./]*)::(\w+)", SEEDS))

    assert len(named) > 200
    for path, name in sorted(named):
        assert (ROOT / path).is_file(), f"{path}::{name}"
        assert re.search(rf"^(async )?def {name}\(", (ROOT / path).read_text(), re.MULTILINE), name


def test_everything_that_the_seeds_list_is_tested_measured_or_said_why_not() -> None:
    rows = re.findall(r"^\| (.+?) +\| *(.*?) *\|$", SEEDS, re.MULTILINE)
    items = [row for row in rows if row[0] != "documented" and not row[0].endswith("**")]

    assert len(items) > 200
    assert [documented for documented, proof in items if not re.search(r"\w{3}", proof)] == []
    for program in re.findall(r"`(bench/\w+\.py)`", SEEDS):
        assert (ROOT / program).is_file()
