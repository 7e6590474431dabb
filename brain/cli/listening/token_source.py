"""Where `brain listen` has its token from. No error shows what it is."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from brain.errors import UsageError

# The characters of a bearer token (RFC 6750), and a few more that do no harm in a header.
TOKEN = re.compile(r"[!-~]+")


def token_source(token: str | None, file: str | None) -> str | Callable[[], str] | None:
    """
    Return the token, or what reads it from a file; a file takes precedence.

    Raises UsageError.
    """
    if file is not None:
        read_token(file)
        return lambda: read_token(file)
    if not token:
        return None
    return checked(token, "the token")


def read_token(path: str) -> str:
    """Return the token in a file; raises UsageError."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"the token file {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"the token file {path} is no text") from None
    return checked(text.strip(), f"what is in the token file {path}")


def checked(text: str, what: str) -> str:
    if TOKEN.fullmatch(text) is None:
        raise UsageError(f"{what} is no token: it has blanks or other characters, or is empty")
    return text
