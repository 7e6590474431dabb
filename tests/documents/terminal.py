"""Types the commands of a document, and compares what they print with what it shows."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.documents.blocks import Block, Command, block_text
from tests.end_to_end.brain import PATIENCE_SECONDS, clean_environment, ended

# What does not end by itself.
ENDLESS = re.compile(r"wscat |curl -\w*N|(?:\.venv/bin/)?brain listen (?!.*--(?:count|until-live))")
# Those that a machine may lack.
PROGRAM = re.compile(r"(?:^|[|&(] *)(curl|jq|node|npm|openssl|psql|wscat)\b", re.MULTILINE)
# Between what the commands of a block print.
SEPARATOR = "\x1e"
# Before what a reader types into wscat.
TYPED = "> "
# Before a message in wscat, and in a stream of events.
PREFIX = re.compile(r"^(?:[<>] |data: )")


@dataclass
class Listening:
    """A command that prints until it is ended."""

    command: Command
    process: asyncio.subprocess.Process
    printed: Path

    @property
    def shown(self) -> list[Any]:
        """The forms of the messages that the document shows."""
        lines = self.command.output.splitlines()
        received = "\n".join(line for line in lines if not line.startswith(TYPED))
        return [shape(message) for message in messages(received)]

    async def has_printed(self, shown: list[Any]) -> None:
        """Return once it has printed a message of each of these forms."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while missing := [form for form in shown if form not in self.forms()]:
                assert self.process.returncode is None, (missing, self.printed.read_text())
                await asyncio.sleep(0.05)
        assert self.process.returncode is None, (self.command, self.printed.read_text())

    def forms(self) -> list[Any]:
        return [shape(message) for message in messages(self.printed.read_text())]


@dataclass
class Terminal:
    """Where the commands of one document are typed, one block after the other."""

    folder: Path
    environment: Mapping[str, str]
    path: str
    """The folders of programs that come before those of this machine."""
    replacements: Mapping[str, str]
    """What a reader of the document has to put in place of its examples."""
    _listening: list[Listening] = field(default_factory=list)

    async def type(self, block: Block) -> None:
        """Type the commands of a block; one that does not end by itself runs on."""
        endless = [command for command in block.commands if ENDLESS.match(command.text)]
        finite = [command for command in block.commands if command not in endless]
        await self._run(block, finite)
        for command in endless:
            await self._listen(command)

    def missing_program(self, block: Block) -> str | None:
        """Return a program that a block needs and this machine lacks."""
        path = self._environment["PATH"]
        words = PROGRAM.findall(block_text(block))
        return next((word for word in words if shutil.which(word, path=path) is None), None)

    @property
    def _environment(self) -> dict[str, str]:
        return {**self.environment, "PATH": f"{self.path}:{os.environ['PATH']}"}

    def adapted(self, text: str) -> str:
        for old, new in self.replacements.items():
            text = text.replace(old, new)
        return text

    async def _run(self, block: Block, commands: list[Command]) -> None:
        lines = [f"{self.adapted(command.text)}\nprintf '\\036'" for command in commands]
        script = "\n".join(["set -euo pipefail", *lines])
        typed = await ended(
            ["bash", "-c", script],
            self._environment,
            cwd=self.folder,
            patience_seconds=PATIENCE_SECONDS * (1 + len(commands)),
        )
        printed = typed.stdout.split(SEPARATOR)
        assert typed.status == 0, f"{block}: {typed.stdout}{typed.stderr}"
        for command, output in zip(commands, printed, strict=False):
            if command.output:
                expect_output(self.adapted(command.output), output or typed.stderr, str(block))

    async def _listen(self, command: Command) -> None:
        printed = self.folder / f"listening-{len(self._listening)}"
        with printed.open("wb") as file:
            process = await asyncio.create_subprocess_exec(
                *("bash", "-c", f"exec {self.adapted(command.text)}"),
                # wscat exits at the end of its input: the pipe stays open.
                stdin=asyncio.subprocess.PIPE,
                stdout=file,
                stderr=file,
                cwd=self.folder,
                env={**clean_environment(), **self._environment},
                start_new_session=True,
            )
        listening = Listening(command, process, printed)
        self._listening.append(listening)
        assert process.stdin is not None
        if "wscat" in command.text:
            await self._has_begun(listening)
        for line in command.output.splitlines():
            if line.startswith(TYPED):
                process.stdin.write(f"{line.removeprefix(TYPED)}\n".encode())
        # The last one may be what happens when the next command is typed.
        await listening.has_printed(listening.shown[:-1])

    async def _has_begun(self, listening: Listening) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not listening.printed.read_text():
                assert listening.process.returncode is None, listening.command
                await asyncio.sleep(0.05)

    async def expect_what_is_shown(self) -> None:
        """Return once what does not end by itself has printed what the document shows."""
        for listening in self._listening:
            await listening.has_printed(listening.shown)

    async def close(self) -> None:
        """End what does not end by itself."""
        for listening in self._listening:
            with suppress(ProcessLookupError):
                os.killpg(listening.process.pid, signal.SIGTERM)
            await listening.process.wait()


def expect_output(shown: str, printed: str, where: str) -> None:
    """Assert that a command printed what a document shows, but for numbers and values of JSON."""
    if shown.lstrip().startswith("{"):
        assert shape(json.loads(printed)) == shape(json.loads(shown)), f"{where}: {printed}"
    else:
        # The reader's database may have more, such as other watched tables.
        lines = without_numbers(printed).splitlines()
        assert set(without_numbers(shown).splitlines()) <= set(lines), f"{where}: {printed}"


def without_numbers(text: str) -> str:
    return re.sub(r"\d+", "0", text).strip()


def messages(text: str) -> list[Any]:
    """Return the JSON objects in the lines of a client's output."""
    found = []
    for line in text.splitlines():
        with suppress(json.JSONDecodeError):
            found.append(json.loads(PREFIX.sub("", line)))
    return [message for message in found if isinstance(message, dict)]


def shape(value: Any) -> Any:
    """Return the names in a JSON value, without its texts and numbers."""
    match value:
        case dict():
            return {name: shape(inner) for name, inner in value.items()}
        case [first, *_]:
            return [shape(first)]
        case []:
            return []
        case _:
            return None
