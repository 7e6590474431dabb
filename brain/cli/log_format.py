"""The format of the log before the settings are read, which may fail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

OPTION, VARIABLE = "--log-format", "BRAIN_LOG_FORMAT"


def log_format_of(arguments: Sequence[str], environment: Mapping[str, str]) -> str:
    """Return the format that a command line asks for: `text` unless it is `brain serve`."""
    command = next((each for each in arguments if not each.startswith("-")), None)
    if command != "serve":
        return "text"
    chosen = next((v for name, v in environment.items() if name.upper() == VARIABLE and v), "text")
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        if argument == OPTION:
            chosen = following
        elif argument.startswith(f"{OPTION}="):
            chosen = argument.removeprefix(f"{OPTION}=")
    return "json" if chosen == "json" else "text"
