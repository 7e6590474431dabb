"""Every command in the documents is run, here or by the test that a comment before it names."""

from __future__ import annotations

import re
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import asyncpg
import pytest

from brain.embedded.binaries import find_binaries
from brain.errors import EmbeddedServerError
from tests.documents.blocks import Block, block_text, blocks_of
from tests.documents.terminal import Terminal
from tests.end_to_end.brain import RunningBrain, has_sent_everything

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "examples").glob("*/*.md")),
    ROOT / "clients" / "typescript" / "README.md",
]
BLOCKS = [block for document in DOCUMENTS for block in blocks_of(document)]
RUN_HERE = [
    document for document in DOCUMENTS if any(block.is_run_here for block in blocks_of(document))
]

TASK = "INSERT INTO tasks (id, agent) VALUES ('task-123', 'dev')"
ORDERS = "CREATE TABLE orders (id int PRIMARY KEY, status text, total numeric, card text)"
NEW_ORDERS = """
    CREATE TABLE orders (id int PRIMARY KEY, status text);
    SELECT brain.watch('orders', 'orders', '{id,status}');
    INSERT INTO orders VALUES (1, 'new')
"""
OWN_ORDERS = """
    CREATE TABLE orders (id int PRIMARY KEY, customer_id text, region text);
    SELECT brain.watch('orders', 'orders', '{id}')
"""
FEED = re.findall(r"```sql\n(.*?)```", (ROOT / "docs" / "feeds.md").read_text(), re.DOTALL)[0]


class Situation(NamedTuple):
    """What a reader of a page has, and what happens after the last command: in SQL."""

    before: str = ""
    after: str = ""


SITUATIONS = {
    "README.md": Situation(TASK),
    "docs/feeds.md": Situation(FEED),
    "docs/operating.md": Situation(ORDERS),
    "docs/protocol.md": Situation(NEW_ORDERS, "INSERT INTO orders VALUES (2, 'new')"),
    "docs/row-types.md": Situation(NEW_ORDERS),
    "docs/security.md": Situation(OWN_ORDERS),
}


def name_of(document: Path) -> str:
    return str(document.relative_to(ROOT))


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.run_by is not None], ids=str)
def test_a_test_that_is_said_to_run_a_block_exists(block: Block) -> None:
    path, _, name = str(block.run_by).partition("::")
    assert name, "expected tests/…/test_….py::test_…"
    assert re.search(rf"^(async )?def {name}\(", (ROOT / path).read_text(), re.MULTILINE)


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_a_module_that_is_run_exists(block: Block) -> None:
    for module in re.findall(r"-m ((?:brain|bench|tests)[\w.]*)", block_text(block)):
        assert find_spec(module) is not None, module


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A folder with what a reader has installed, as far as this machine has it."""
    folder = tmp_path / "bin"
    folder.mkdir()
    programs = {"brain": f"{sys.executable} -m brain", "python": sys.executable}
    if shutil.which("psql") is None:
        try:
            programs["psql"] = str(find_binaries().psql)
        except EmbeddedServerError:
            pass
    for name, command in programs.items():
        (folder / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        (folder / name).chmod(0o755)
    return folder


@pytest.mark.timeout(300)
@pytest.mark.parametrize("document", RUN_HERE, ids=name_of)
async def test_the_commands_of_a_document_do_what_it_shows(
    document: Path, shared_brain: RunningBrain, shared_database: str, tools: Path, tmp_path: Path
) -> None:
    blocks = [block for block in blocks_of(document) if block.is_run_here]
    situation = SITUATIONS.get(name_of(document), Situation())
    await execute(shared_database, situation.before)
    await has_sent_everything(shared_brain, shared_database)
    terminal = terminal_of(shared_brain, shared_database, tools, tmp_path)
    try:
        for block in blocks:
            if program := terminal.missing_program(block):
                # What follows may need what this block does.
                pytest.skip(f"{block} needs {program}")
            await terminal.type(block)
        await execute(shared_database, situation.after)
        await terminal.expect_what_is_shown()
    finally:
        await terminal.close()


async def execute(database: str, statements: str) -> None:
    if statements:
        connection = await asyncpg.connect(database)
        await connection.execute(statements)
        await connection.close()


def terminal_of(brain: RunningBrain, database: str, tools: Path, folder: Path) -> Terminal:
    parts = urlsplit(database)
    place = f"database {parts.path[1:]} at {parts.hostname}:{parts.port}"
    path = f"{tools}:{Path(sys.executable).parent}"
    (folder / "work" / "src").mkdir(parents=True)
    return Terminal(
        folder / "work",
        {
            "HOME": str(folder),
            "BRAIN_DATABASE_URL": database,
            "BRAIN_JWT_SECRET": "a secret of 32 bytes, or of more",
            "BRAIN_URL": brain.http,
            "PYTHONPATH": str(ROOT),
        },
        path,
        {
            ".venv/bin/": "",
            "localhost:5221": f"localhost:{brain.port}",
            "psql -h localhost -U cecelia cecelia": f"psql '{database}'",
            "database shop at localhost:5432": place,
            "Bearer …": "Bearer a-word",
        },
    )
