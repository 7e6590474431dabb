"""
Reads a file of variables, as systemd's EnvironmentFile= has them.

Source: systemd.exec(5). Brain is stricter in one respect: a line that systemd would ignore is an
error, because a setting that does not take effect should be noticed. No error has anything of a
value: it may be a secret.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from brain.errors import UsageError

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
BLANKS = " \t\r"
COMMENTS = ("#", ";")
# What a backslash takes its meaning from between double quotes; before others it stands for itself.
ESCAPED_IN_QUOTES = '"\\`$'


class Variable(NamedTuple):
    """What one assignment of a file says."""

    value: str
    line: int


def read_environment_file(path: Path, setting: str = "BRAIN_ENV_FILE") -> dict[str, Variable]:
    """
    Return the variables in a file by their names; of several with one name the last.

    Raises `UsageError`, with the line that is wrong.
    """
    try:
        text = path.read_bytes().decode()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror} ({setting})") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{path}, line {line}: not UTF-8") from None
    found = {}
    for name, variable in variables_in(text, path):
        if name.upper() == setting:
            raise UsageError(f"{path}, line {variable.line}: {name} is for the environment alone")
        found[name] = variable
    return found


def variables_in(text: str, path: Path) -> Iterator[tuple[str, Variable]]:
    """Yield the assignments in a text. Raises `UsageError`."""
    place = 0
    while place < len(text):
        end = text.find("\n", place)
        end = len(text) if end < 0 else end
        line = text[place:end].strip(BLANKS)
        if line and not line.startswith(COMMENTS):
            number = text.count("\n", 0, place) + 1
            name, sign, _ = line.partition("=")
            name = name.rstrip(BLANKS)
            if not sign or not NAME.fullmatch(name):
                raise UsageError(f"{path}, line {number}: it should read NAME=value")
            begin = text.index("=", place) + 1
            value, end = value_at(text, begin, f"{path}, line {number}: {name}")
            yield name, Variable(value, number)
        place = end + 1


def value_at(text: str, place: int, where: str) -> tuple[str, int]:
    """Return the value that begins at a place, and where it ends: at a line feed, or the end."""
    value, kept, is_before = "", 0, True
    while place < len(text) and (character := text[place]) != "\n":
        if is_before and character in "'\"":
            quoted, place = quoted_at(text, place, where)
            value += quoted
            kept = len(value)
            continue
        place += 1
        if is_before and character in BLANKS:
            continue
        is_before = False
        if character == "\\":
            following = text[place : place + 1]
            value += "" if following == "\n" else following
            place += 1
        else:
            value += character
        if character not in BLANKS:  # those at the end are not part of it
            kept = len(value)
    if "\0" in value:
        raise UsageError(f"{where} has a zero in its value")
    return value[:kept], place


def quoted_at(text: str, place: int, where: str) -> tuple[str, int]:
    """Return the value between the quotes that begin at a place, and where it ends."""
    quote, place, value = text[place], place + 1, ""
    while place < len(text) and text[place] != quote:
        character = text[place]
        if character == "\\" and quote == '"':
            place += 1
            following = text[place : place + 1]
            if following == "\n":
                character = ""
            else:
                character = following if following in ESCAPED_IN_QUOTES else f"\\{following}"
        value += character
        place += 1
    if place >= len(text):
        raise UsageError(f"{where} has a quote that is not closed")
    return value, place + 1
