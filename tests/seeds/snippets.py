"""The code that the documents print, verbatim."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

FOLDER = Path(__file__).parent / "documents"

# A heading, or a block of code from fence to fence: a `#` in a block is no heading.
PART = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)\n(?P<code>.*?)^(?P=indent)```$|^#+ (?P<heading>[^\n]+)$",
    re.DOTALL | re.MULTILINE,
)


def parts(document: str) -> Iterator[re.Match[str]]:
    """Yield the headings and the blocks of code of a document, in their order."""
    return PART.finditer((FOLDER / document).read_text(encoding="utf-8"))


class Document:
    """One of the documents, and the address of the server in it, such as `localhost:8000`."""

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self._address = address
        self._blocks: dict[str, list[str]] = {}
        blocks: list[str] = []
        for part in parts(name):
            if part["heading"] is None:
                blocks.append(dedent(part["code"]))
            else:
                blocks = self._blocks.setdefault(part["heading"].strip(), [])

    @property
    def headings(self) -> list[str]:
        return list(self._blocks)

    def code(self, heading: str, number: int = 1) -> str:
        """Return one of the blocks under a heading; raise `LookupError` if it is not there."""
        if heading not in self._blocks:
            raise LookupError(f"{self.name} has no heading {heading!r}")
        blocks = self._blocks[heading]
        if not 0 < number <= len(blocks):
            raise LookupError(
                f"{self.name} has {len(blocks)} blocks under {heading!r}: no number {number}"
            )
        return blocks[number - 1]

    def snippet(
        self, heading: str, number: int = 1, *, at: str, fill_in: dict[str, str] | None = None
    ) -> str:
        """
        Return a block with the server's address replaced by `at`, such as `localhost:5221`.

        Also replace what a reader has to fill in: `fill_in` maps each printed text to its value.
        Raise `LookupError` if the block lacks the address or one of these texts.
        """
        code = self.code(heading, number)
        for printed, actual in {self._address: at, **(fill_in or {})}.items():
            if printed not in code:
                raise LookupError(f"{self.name} does not print {printed!r} under {heading!r}")
            code = code.replace(printed, actual)
        return code

    def message(self, heading: str, number: int = 1) -> dict[str, Any]:
        """Return a message that is printed as JSON."""
        message: dict[str, Any] = json.loads(self.code(heading, number))
        return message
