"""
The commands that a document shows, and who runs them.

A block of commands is run as it stands, unless a comment before it says otherwise:

    <!-- not run: why -->
    <!-- run by tests/a/test_b.py::test_c -->

or one comment anywhere on the page:

    <!-- not run on this page: why -->
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

SHELLS = {"sh", "bash", "shell", "console"}
# What a block without a language, and without prompts, begins a line with if it has commands.
PROGRAMS = (
    r"(?:\.venv/bin/|\./)\S+"
    r"|(?:brain|caddy|centrifugo|createdb|curl|docker|export|git|haproxy|journalctl|kubectl|kustomize)\b"
    r"|(?:make|nginx|node|npm|npx|openssl|pg_\w+|pgbench|pip|promtool|psql|python[\d.]*|sudo|systemctl)\b"
    r"|(?:uvicorn|wscat)\b"
)
STARTS = re.compile(rf"(?:[A-Z_]+=\S* )*(?:{PROGRAMS})(?: |$)")
FENCED = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?<=\n\n)(?: {4}\S.*\n)+")
MARK = re.compile(r"<!-- (not run:|run by) (.+?) -->\s*\Z")
PAGE_MARK = re.compile(r"<!-- not run on this page: (.+?) -->")


@dataclass(frozen=True)
class Command:
    text: str
    output: str
    """What the document shows that it prints; empty if it shows nothing."""


@dataclass(frozen=True)
class Block:
    """Commands of a document that belong together."""

    document: Path
    line: int
    commands: tuple[Command, ...]
    not_run: str | None = None
    """Why nothing runs it."""
    run_by: str | None = None
    """The test that does what it says."""

    @property
    def is_run_here(self) -> bool:
        return self.not_run is None and self.run_by is None

    def __str__(self) -> str:
        return f"{self.document.name}:{self.line}"


def block_text(block: Block) -> str:
    return "\n".join(command.text for command in block.commands)


def blocks_of(document: Path, text: str | None = None) -> list[Block]:
    """Return the blocks of commands of a document, in order."""
    text = document.read_text() if text is None else text
    page = PAGE_MARK.search(text)
    found = []
    for start, commands in places(text):
        mark = MARK.search(text, 0, start)
        not_run = page[1] if page else None
        run_by = None
        if mark and mark[1] == "not run:":
            not_run = mark[2]
        elif mark:
            not_run, run_by = None, mark[2]
        line = text.count("\n", 0, start) + 1
        found.append(Block(document, line, tuple(commands), not_run, run_by))
    return found


def places(text: str) -> Iterator[tuple[int, list[Command]]]:
    """Yield where a block of commands begins, and its commands."""
    fenced = list(FENCED.finditer(text))
    outside = FENCED.sub(lambda match: "\n" * len(match[0]), text)
    blocks = [(match.start(), match[2], match[3]) for match in fenced]
    blocks += [(match.start(), "", match[0]) for match in INDENTED.finditer(outside)]
    for start, language, body in sorted(blocks):
        lines = dedent(body).splitlines()
        if language in SHELLS or (not language and has_commands(lines)):
            yield start, list(commands_in(lines))


def has_commands(lines: list[str]) -> bool:
    return any(line.startswith("$ ") or STARTS.match(line) for line in lines)


def commands_in(lines: list[str]) -> Iterator[Command]:
    """Yield the commands of a block; a line without a prompt is output, if another line has one."""
    has_prompts = any(line.startswith("$ ") for line in lines)
    text, output, is_continued = "", list[str](), False
    for line in lines:
        if is_continued:
            text += "\n" + line
        elif line.startswith("$ ") or not has_prompts:
            if text:
                yield Command(text, "\n".join(output))
            text, output = line.removeprefix("$ "), []
        else:
            output.append(line)
        is_continued = text.endswith("\\") and not output
    if text:
        yield Command(text, "\n".join(output))
