"""The messages, code and lists that the documents print."""

from __future__ import annotations

import json
import re
from textwrap import dedent
from typing import Any

from tests.seeds.snippets import FOLDER, parts


def snippets(document: str, language: str) -> list[str]:
    """Return the code blocks of a document that are in a language."""
    return [dedent(part["code"]) for part in parts(document) if part["language"] == language]


def printed(document: str, type: str) -> list[dict[str, Any]]:
    """Return the messages of a type that a document prints, in their order."""
    found = []
    for snippet in snippets(document, "json"):
        try:
            message = json.loads(snippet)
        except json.JSONDecodeError:
            continue  # abridged by dots
        if message.get("type") == type:
            found.append(message)
    assert found, f"{document} prints no {type}"
    return found


def listed(document: str, title: str) -> list[str]:
    """Return the values that a document lists under a title in bold, as in "- `idle` - …"."""
    text = (FOLDER / document).read_text(encoding="utf-8")
    found = re.search(rf"^\*\*{title}:\*\*\n((?:- .+\n)+)", text, re.MULTILINE)
    assert found, f"{document} lists no {title}"
    return re.findall(r"^- `(\w+)`", found[1], re.MULTILINE)
