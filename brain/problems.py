"""What goes wrong and is lived with: counted by where it comes from, logged, shown by `/readyz`."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from brain.log_events import PROBLEM
from brain.log_limit import LimitedLog

# How long a problem that does not happen again is shown.
KEEP_SECONDS = 600.0
# The first words of addresses, by which problems are counted.
KINDS = (
    *(
        "access",
        "clients",
        "feed",
        "feeds",
        "filters",
        "hub",
        "log",
        "message",
        "metrics",
        "presence",
    ),
    *("requests", "retention", "revocations", "row", "schema", "snapshot", "snapshots", "tickets"),
    *("transactions", "watch", "watched", "watches"),
)
# An address may name a key: there is no end of them. What is above counts as `log (others)`.
MOST_ADDRESSES = 200

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Problem:
    """What went wrong at one address."""

    address: str
    text: str
    """The latest."""
    channel: str | None
    """The channel that it is confined to, if there is one."""
    count: int
    at: datetime
    """When it happened last."""


@dataclass(slots=True)
class Record:
    text: str = ""
    channel: str | None = None
    count: int = 0
    at: datetime = field(default_factory=lambda: datetime.now(UTC))
    happened_at: float = 0.0
    """By the clock of the registry."""


class Problems:
    """
    The problems of this process that do not end it.

    Each has an address: where it comes from, as in `log`, `retention`, or `hub news 7`. An address
    is logged once a minute at most, with the number of lines that were left out.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._log = LimitedLog(logger, clock, 2 * MOST_ADDRESSES)
        self.counts = dict.fromkeys((*KINDS, "other"), 0)
        """How many there have been of each kind."""
        self._records: dict[str, Record] = {}
        """The one that happened last is the last."""

    def report(
        self,
        address: str,
        text: str,
        *,
        channel: str | None = None,
        unexpected: BaseException | None = None,
        is_known: bool = False,
    ) -> None:
        """
        Count a problem, and log it unless it `is_known`: that nothing has changed.

        `unexpected` is what may be a bug: the first one of an address is logged with its traceback.
        """
        now = self._clock()
        self._forget(now)
        kind = address.partition(" ")[0]
        self.counts[kind if kind in self.counts else "other"] += 1
        address, text = printable(address), printable(text)
        if address not in self._records and len(self._records) >= MOST_ADDRESSES:
            address = f"{address.partition(' ')[0]} (others)"
        record = self._records.pop(address, None) or Record()
        self._records[address] = record
        record.text, record.at, record.happened_at = text, datetime.now(UTC), now
        record.channel = channel
        record.count += 1
        if not is_known:
            error = unexpected if record.count == 1 else None
            self._log.log(
                PROBLEM,
                address,
                "%s: %s",
                address,
                text,
                error=error,
                address=address,
                channel=channel,
            )

    def recent(self) -> list[Problem]:
        """Return what went wrong in the last minutes, the latest first."""
        self._forget(self._clock())
        return [
            Problem(address, record.text, record.channel, record.count, record.at)
            for address, record in reversed(self._records.items())
        ]

    def _forget(self, now: float) -> None:
        while self._records:
            address, record = next(iter(self._records.items()))
            if now - record.happened_at < KEEP_SECONDS:
                return
            del self._records[address]


EXAMPLE_URL = "postgresql://user:password@host:port/database"
"""How a database URL is explained."""

# Texts may hold any URL, also one of which it cannot be told where the password begins and ends:
# rather too much is left out. The user is kept where it is followed by a colon. What repeats is
# bounded: the time must not grow with the square of a text that a client may have sent.
USER = r"(?P<user>[^\s/?#:@'\"]{0,200}:)"
POSTGRESQL = r"\bpostgres(?:ql)?(?:\+\w{1,20})?:(?://)?+"
POSTGRESQL_URL = re.compile(rf"{POSTGRESQL}(?:{USER}|(?=[^\s@]{{1,2000}}\s))", re.IGNORECASE)
URL_START = re.compile(rf"(?:{POSTGRESQL}|\b[a-z][a-z0-9+.-]{{0,20}}://){USER}?+", re.IGNORECASE)
USER_START = re.compile(r"(?:^|['\"(=])(?://)?(?P<user>[^\s/?#:@'\"()=]{1,200}:)(?!//)")
# Letters of a parameter's name may be percent-encoded.
KEY = "".join(f"(?:{c}|%{ord(c):x}|%{ord(c.upper()):x})" for c in "password")
PARAMETERS = (
    re.compile(rf"(?<=[?&]){KEY}=(?P<value>[^&]+)", re.IGNORECASE),
    # As libpq takes it.
    re.compile(
        rf"{KEY}\s{{0,9}}=\s{{0,9}}(?P<value>'(?:[^'\\]|\\.){{0,200}}'\S{{0,200}}|[^\s&]+)",
        re.IGNORECASE,
    ),
)


def printable(text: str) -> str:
    """Return a text as one line of a log: no control characters, and no passwords of URLs."""
    if "@" in text or "=" in text:  # a password stands before the one, or behind the other
        text = EXAMPLE_URL.join(map(without_passwords, text.split(EXAMPLE_URL)))
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def without_passwords(text: str) -> str:
    """Return a text with `***` for each password."""
    pieces, end = list[str](), 0
    for start, stop in sorted(password_spans(text)):
        if start >= end:
            pieces += [text[end:start], "***"]
        end = max(end, stop)
    return "".join([*pieces, text[end:]])


def password_spans(text: str) -> Iterator[tuple[int, int]]:
    """Yield where passwords may begin and end; spans may overlap."""
    last = text.rfind("@")
    # PostgreSQL's own may have blanks in the password.
    if last >= 0 and (url := POSTGRESQL_URL.search(text, 0, last)) is not None:
        yield url.end(), last
    for run in re.finditer(r"\S+", text):
        authority = run[0].rpartition("@")[0]
        starts = [start.search(authority) for start in (URL_START, USER_START)]
        found = min(filter(None, starts), key=re.Match.start, default=None)
        if found is not None and found.end() < len(authority):
            # Otherwise what comes before the only @ is the user.
            if found["user"] or re.search("[:/?#@]", authority[found.end() :]):
                yield run.start() + found.end(), run.start() + len(authority)
    for parameter in PARAMETERS:
        for found in parameter.finditer(text):
            yield found.span("value")
