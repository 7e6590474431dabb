"""The documents and the code agree."""

from __future__ import annotations

import ast
import re
import signal
from pathlib import Path
from typing import get_args

import pytest
from click import Context

from brain import errors
from brain.cli.main import commands
from brain.close_codes import CloseCode
from brain.message.base_format import Connected, Echo, Reset, SnapshotPart
from brain.message.cursor_format import Heartbeat
from brain.reload import RELOADED
from brain.settings import Settings
from brain.systems.shared_tables.tasks.run_messages import RunTruncated, RunType

ROOT = Path(__file__).parent.parent
PROTOCOL = (ROOT / "docs" / "protocol.md").read_text()
SEEDS = (ROOT / "docs" / "seeds.md").read_text()
OPERATING = (ROOT / "docs" / "operating.md").read_text()
LIFE = (ROOT / "docs" / "life-of-a-change.md").read_text()
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]


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


def close_code_rows() -> dict[int, str]:
    """Return the rows of the table of close codes."""
    return {int(row[2:6]): row for row in PROTOCOL.splitlines() if re.match(r"\| \d{4} \|", row)}


def test_the_table_of_close_codes_lists_every_code_and_no_other() -> None:
    assert close_code_rows().keys() == set(CloseCode)


def test_the_table_of_close_codes_says_whether_to_reconnect() -> None:
    for code, row in close_code_rows().items():
        assert "reconnect" in row
        assert ("do not reconnect" in row) == (code >= 4500)


def test_an_error_that_closes_a_connection_has_a_code_that_says_whether_to_reconnect() -> None:
    for error in errors.ConnectionEnded.__subclasses__():
        assert error.close_code == CloseCode.TRY_AGAIN_LATER or 4000 <= error.close_code < 5000


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


def test_the_operating_page_lists_every_command_and_no_other() -> None:
    listed = re.findall(r"^brain ([a-z]+) ", OPERATING, re.MULTILINE)

    assert sorted(listed) == sorted(commands.list_commands(Context(commands)))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
        assert (document.parent / target).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_every_path_in_a_document_exists(document: Path) -> None:
    text = document.read_text()
    paths = re.findall(r"(?<![\w/.])(?:brain|tests|bench|docs|migrations)/[\w./<>-]*", text)

    assert [
        path for path in paths if "<" not in path and not (ROOT / path.rstrip(".")).exists()
    ] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_a_link_that_reads_like_a_file_leads_to_that_file(document: Path) -> None:
    links = re.findall(r"\[([\w./-]+\.(?:py|sql|md))\]\(([^)#:]+)", document.read_text())

    assert [link for link in links if Path(link[0]).name != Path(link[1]).name] == []


def test_every_hop_of_a_change_names_a_file() -> None:
    hops = [row for row in LIFE.splitlines() if re.match(r"\| \d+ \|", row)]

    assert len(hops) == 18
    for hop in hops:
        targets = re.findall(r"\]\(([^)]+)\)", hop)
        assert targets, hop
        assert all((ROOT / "docs" / target).is_file() for target in targets), hop


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


def test_everything_that_the_seeds_list_is_tested_measured_or_excused() -> None:
    rows = re.findall(r"^\| (.+?) +\| *(.*?) *\|$", SEEDS, re.MULTILINE)
    items = [row for row in rows if row[0] != "documented" and not row[0].endswith("**")]

    assert len(items) > 200
    assert [documented for documented, proof in items if not re.search(r"\w{3}", proof)] == []
    for program in re.findall(r"`(bench/\w+\.py)`", SEEDS):
        assert (ROOT / program).is_file()


def test_everything_that_has_a_test_in_the_seeds_has_one_on_a_running_brain() -> None:
    for row in SEEDS.splitlines():
        if row.startswith("| ") and (paths := re.findall(r"([\w./]+)::", row)):
            assert [path for path in paths if re.match("tests/(seeds|end_to_end)/", path)], row


def exit_statuses() -> set[int]:
    """Return those with which the code exits: as constants, of errors, or for signals."""
    found = {0, 2}  # done; click's own for wrong usage
    for path in (ROOT / "brain").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Assign(targets=[ast.Name(id="exit_code")], value=ast.Constant(int(value))):
                    found.add(value)
                case ast.AnnAssign(target=ast.Name(id="exit_code"), value=ast.Constant(int(value))):
                    found.add(value)
                case ast.Call(func=ast.Attribute(attr="exit" | "_exit"), args=[status]):
                    found |= statuses_of(status)
    return found


def statuses_of(node: ast.expr) -> set[int]:
    """Return what the argument of an `exit` may be, as far as it says so itself."""
    match node:
        case ast.Constant(int(value)):
            return {value}
        case ast.IfExp():
            return statuses_of(node.body) | statuses_of(node.orelse)
        case ast.BinOp(ast.Constant(128), ast.Add(), ast.Attribute(ast.Name("signal"), name)):
            return {128 + signal.Signals[name]}
        case ast.BinOp(ast.Constant(128), ast.Add(), _):
            return {128 + signal.SIGINT, 128 + signal.SIGTERM}  # those that are handled
    return set()


def documented_statuses(document: str) -> set[int]:
    """Return the statuses in the table of exit statuses of a document."""
    table = document.partition("| exit status | meaning |\n")[2].partition("\n\n")[0]
    cells = [row.split("|")[1] for row in table.splitlines()[1:]]
    return {int(number) for cell in cells for number in re.findall(r"\d+", cell)}


def test_the_operating_page_lists_every_exit_status_and_no_other() -> None:
    assert documented_statuses(OPERATING) == exit_statuses()


def test_the_exit_statuses_of_a_listener_are_those_of_its_page() -> None:
    assert documented_statuses((ROOT / "docs" / "listen.md").read_text()) <= exit_statuses()


def test_the_operating_page_lists_every_setting_that_is_read_again_and_no_other() -> None:
    section = OPERATING.partition("### Reading settings again")[2].partition("\n\n")[2]
    table = section.partition("| for whom | settings |")[2].partition("\n\n")[0]
    listed = [row.split("|")[2] for row in table.splitlines()[2:]]
    names = re.findall(r"`BRAIN_(\w+)`", " ".join(listed))

    assert sorted(names) == sorted(name.upper() for name in RELOADED)
