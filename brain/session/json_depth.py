"""How deeply a JSON text is nested."""

from __future__ import annotations

import re

# Brackets in strings do not count; a string that does not end is no JSON.
BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*"?|([\[{])|([\]}])', re.DOTALL)


def is_deeper(text: str, most: int) -> bool:
    """Return True if `text`, if it is JSON, nests arrays and objects more than `most` deep."""
    if text.count("[") + text.count("{") <= most:
        return False
    depth = 0
    for match in BRACKETS.finditer(text):
        if match[1]:
            depth += 1
            if depth > most:
                return True
        elif match[2]:
            depth -= 1
    return False
