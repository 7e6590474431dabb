from __future__ import annotations

import re
from pathlib import Path

from click import Option

from brain.cli.doctor import doctor_command
from brain.doctor.checks import CHECKS

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "doctor.md").read_text()
ROWS = [
    row.strip("| ").split(" | ")
    for row in DOCUMENT.partition("## Checks")[2].splitlines()
    if row.startswith("| `")
]


def test_the_page_lists_every_check_and_no_other_in_their_order() -> None:
    assert [row[0].strip("`") for row in ROWS] == [check.id for check in CHECKS]


def test_no_two_checks_have_the_same_id() -> None:
    ids = [check.id for check in CHECKS]

    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-z]+\.[a-z_]+", id) for id in ids)


def test_every_check_has_a_condition_and_a_way_out_in_the_page() -> None:
    assert [row for row in ROWS if len(row) != 3 or not all(map(str.strip, row))] == []


def test_the_page_lists_every_option_and_no_other() -> None:
    options = DOCUMENT.partition("| option |")[2].partition("| exit status |")[0]
    listed = {
        name
        for row in options.splitlines()
        if row.startswith("| `")
        for name in re.findall(r"--[a-z-]+", row.split("|")[1])
    }
    real = {
        name
        for parameter in doctor_command.params
        if isinstance(parameter, Option)
        for name in parameter.opts
    }

    assert listed == real


def test_every_check_that_the_page_names_for_a_fault_exists() -> None:
    faults = DOCUMENT.partition("## What it says of common faults")[2].partition("## JSON")[0]
    named = set(re.findall(r"`([a-z]+\.[a-z_]+)`", faults)) - {"brain.trim"}

    assert len(named) > 15
    assert named <= {check.id for check in CHECKS}


def test_what_ways_out_refer_to_exists() -> None:
    code = "".join(file.read_text() for file in (ROOT / "brain" / "doctor").glob("*.py"))
    named = set(re.findall(r"\bsee ([a-z]+\.[a-z_]+)", code))

    assert len(named) > 10
    assert named <= {check.id for check in CHECKS}
