"""The format of the log before the settings are read, which may fail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from brain.environment_file import read_environment_file
from brain.errors import UsageError


def log_format_of(arguments: Sequence[str], environment: Mapping[str, str]) -> str:
    """Return the format that a command line asks for: `text` unless it is `brain serve`."""
    command = next((each for each in arguments if not each.startswith("-")), None)
    if command != "serve":
        return "text"
    chosen = option(arguments, "--log-format") or variable(environment, "BRAIN_LOG_FORMAT")
    path = option(arguments, "--env-file") or variable(environment, "BRAIN_ENV_FILE")
    if not chosen and path:
        with suppress(UsageError):  # which is reported when the settings are read
            found = read_environment_file(Path(path))
            chosen = variable(
                {name: each.value for name, each in found.items()}, "BRAIN_LOG_FORMAT"
            )
    return "json" if chosen == "json" else "text"


def option(arguments: Sequence[str], name: str) -> str | None:
    """Return what an option is set to, the last time that it is given."""
    values = [
        following if argument == name else argument.removeprefix(f"{name}=")
        for argument, following in zip(arguments, [*arguments[1:], ""], strict=True)
        if argument == name or argument.startswith(f"{name}=")
    ]
    return values[-1] if values else None


def variable(environment: Mapping[str, str], name: str) -> str | None:
    """Return what a variable is set to, whatever its case."""
    return next((value for key, value in environment.items() if key.upper() == name), None)
