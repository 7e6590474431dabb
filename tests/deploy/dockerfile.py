"""A Dockerfile, as far as a machine without a Docker engine can follow it."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

CONTINUED = re.compile(r"\\\n\s*")


@dataclass
class Stage:
    """What is between one FROM and the next."""

    image: str
    name: str | None
    instructions: list[tuple[str, str]] = field(default_factory=list)
    """Each with its arguments."""

    def all(self, instruction: str) -> list[str]:
        """Return the arguments of all instructions of this kind."""
        return [text for name, text in self.instructions if name == instruction]

    def last(self, instruction: str) -> str:
        return self.all(instruction)[-1]

    @property
    def environment(self) -> dict[str, str]:
        pairs = [word for text in self.all("ENV") for word in shlex.split(text)]
        return dict(pair.split("=", 1) for pair in pairs)

    @property
    def command(self) -> list[str]:
        """The command of a container, which has to be in exec form."""
        return exec_form(self.last("CMD"))

    @property
    def health_check(self) -> list[str]:
        return exec_form(self.last("HEALTHCHECK").partition("CMD ")[2])


def exec_form(text: str) -> list[str]:
    words: list[str] = json.loads(text)
    return words


def stages_of(file: Path) -> list[Stage]:
    """Read a Dockerfile without heredocs and parser directives."""
    stages: list[Stage] = []
    lines = [line for line in file.read_text().splitlines() if not line.startswith("#")]
    for line in CONTINUED.sub("", "\n".join(lines)).splitlines():
        instruction, _, text = line.partition(" ")
        if instruction == "FROM":
            image, *name = re.split(r" AS ", text, flags=re.IGNORECASE)
            stages.append(Stage(image, name[0] if name else None))
        elif instruction:
            stages[-1].instructions.append((instruction, text))
    return stages
