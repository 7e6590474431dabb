"""The exit statuses in docs/operating.md are those that Brain ends with, and no others."""

from __future__ import annotations

import ast
import pkgutil
import re
import signal
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import click

import brain
from brain.database import migration_plan
from brain.errors import BrainError

ROOT = Path(__file__).parents[1]
OPERATING = (ROOT / "docs" / "operating.md").read_text()
LISTEN = (ROOT / "docs" / "listen.md").read_text()

PLAN = {
    migration_plan.NOTHING_TO_DO,
    migration_plan.NODES_GO_ON,
    migration_plan.NODES_STOP,
}
SIGNALS = {128 + signal.SIGINT, 128 + signal.SIGTERM}


def statuses_of_errors() -> set[int]:
    """Return the status of each error that ends a command, its own or that of click."""
    for module in pkgutil.walk_packages(brain.__path__, "brain."):
        if not module.name.endswith("__main__"):
            import_module(module.name)
    pending, found = [BrainError], {click.UsageError.exit_code}
    while pending:
        error = pending.pop()
        found.add(error.exit_code)
        pending += error.__subclasses__()
    return found


def ways_to_exit() -> Iterator[str]:
    """Yield what each `sys.exit` of a command is called with."""
    for room in ("cli", "process"):
        for file in sorted((ROOT / "brain" / room).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Call) and ast.unparse(node.func) == "sys.exit":
                    yield f"{file.relative_to(ROOT / 'brain')}: {ast.unparse(node.args[0])}"


def ends_with(errors: set[int]) -> dict[str, set[int]]:
    """Return the statuses of each way to exit; a new one has to be added here."""
    return {
        "cli/doctor.py": {0, 1},
        "cli/listening/command.py: 128 + ended.number": SIGNALS,
        "cli/listening/command.py: 128 + signal.SIGPIPE": {128 + signal.SIGPIPE},
        "cli/main.py: commands(standalone_mode=False)": {0},
        "cli/main.py: error.exit_code": errors,
        "cli/main.py: status": errors,
        "cli/main.py: 128 + signal.SIGINT": {128 + signal.SIGINT},
        "cli/migrate.py: exit_status": {0, 1, *PLAN},
        "cli/serve.py: status": {0, 1},
        "cli/serve.py: serve_as_worker(worker, settings, systems)": {0, 1},
        "process/signals.py: 128 + number": SIGNALS,
    }


def documented(text: str) -> set[int]:
    """Return the statuses in the table of exit statuses."""
    table = text.partition("| exit status |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| ([\d, ]+) \|", table, re.MULTILINE)
    return {int(status) for row in rows for status in row.split(",")}


def test_the_documents_have_every_exit_status_and_no_other() -> None:
    known = ends_with(statuses_of_errors())
    used: set[str] = set()
    for way in ways_to_exit():
        name = way if way in known else way.partition(":")[0]
        assert name in known, f"which status is that? {way}"
        used.add(name)

    assert used == known.keys()
    assert documented(OPERATING) == set().union(*known.values())


def test_the_page_of_listen_has_the_statuses_that_are_its_own() -> None:
    assert documented(LISTEN) <= documented(OPERATING)
    (row,) = re.findall(r"^\| ([\d, ]+) \| of \[`brain listen`\]", OPERATING, re.MULTILINE)
    assert {int(status) for status in row.split(",")} <= documented(LISTEN)
