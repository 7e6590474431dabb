"""The URL of the database: what it may look like, and what is shown of it."""

from __future__ import annotations

import re

from brain.errors import WrongDatabaseUrl
from brain.problems import EXAMPLE_URL

# Several hosts with commas between them, one of which is to be the primary. What ends a part of the
# URL is refused within another part: asyncpg would take the rest of a password for a host.
PORT = r":\d{1,5}"
HOST = rf"(?:(?:[^\s/?#@:,\[\]]+|\[[0-9a-fA-F:.]+\])(?:{PORT})?|{PORT})"
URL = re.compile(
    r"(?P<scheme>postgres(?:ql)?)://(?:(?P<user>[^\s/?#@:]*)(?P<password>:[^\s/?#@]*)?@)?"
    rf"(?P<hosts>{HOST}(?:,{HOST})*)?(?P<path>/[^\s?#@]*)?(?P<query>\?[^\s#@]*)?"
)
URL_RULE = (
    f"must read {EXAMPLE_URL}, with blanks and characters like / ? # @ in a part of it"
    " percent-encoded: %20 %2F %3F %23 %40"
)
# What is shown of a URL that is none: which part of it is the password cannot be told.
UNKNOWN_URL = "postgresql://..."
# Parameters of a URL of which asyncpg checks the values.
CHECKED_PARAMETERS = (
    "sslmode",
    "sslnegotiation",
    "gsslib",
    "ssl_min_protocol_version",
    "ssl_max_protocol_version",
)


class UrlWithCommand(str):
    """A URL of which a command prints the password, anew for each connection."""

    password_command: str

    def __new__(cls, url: str, password_command: str) -> UrlWithCommand:
        made = super().__new__(cls, url)
        made.password_command = password_command
        return made


def check_url(url: str) -> None:
    """Raise `WrongDatabaseUrl`, without the URL, unless it is one of PostgreSQL."""
    match = parse_url(url)
    if match is None or any(int(port) > 65535 for port in ports_of(match)):
        raise WrongDatabaseUrl(f"the database URL {URL_RULE}")


def parse_url(url: str) -> re.Match[str] | None:
    return URL.fullmatch(url) if url.isprintable() else None


def ports_of(match: re.Match[str]) -> list[str]:
    return [port[1:] for port in re.findall(rf"{PORT}(?=,|$)", match["hosts"] or "")]


def shown(url: str, *, with_user: bool = True) -> str:
    """Return `url` for printing: without its password and its parameters."""
    if (match := parse_url(url)) is None:
        return UNKNOWN_URL
    user = f"{match['user']}@" if match["user"] and with_user else ""
    return f"{match['scheme']}://{user}{match['hosts'] or ''}{match['path'] or ''}"


def outlined(url: str) -> str:
    """Return `url` for a command to complete, with `...` for its password and its parameters."""
    if (match := parse_url(url)) is None:
        return UNKNOWN_URL
    user = match["user"] or ""
    if match["password"] is not None:
        user = f"{user}:..."
    query = "?..." if match["query"] else ""
    place = f"{match['hosts'] or ''}{match['path'] or ''}"
    return f"{match['scheme']}://{user}{'@' if user else ''}{place}{query}"


def why_wrong(error: Exception) -> str:
    """Return why asyncpg refuses a URL, in words of Brain's own."""
    text = str(error)
    if (name := next((each for each in CHECKED_PARAMETERS if each in text), None)) is not None:
        return f"its parameter {name} has another value than it may have"
    return f"it {URL_RULE}, and its parameters ?name=value&name=value"
