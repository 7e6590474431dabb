"""Where sessions read what they send, and publish what clients send."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from brain.database.history import HistoryReader
from brain.database.transactions import AwaitedTransactions
from brain.errors import LogUnavailable
from brain.hub.hub import Hub
from brain.message.matching import RowAccess
from brain.message.page import Page, PageRequest
from brain.message.snapshot import Snapshot
from brain.problems import Problems


async def publish_nothing(channel: str, type: str, data: str, recipient: str | None) -> int:
    """Publish no message: there is no database."""
    raise LogUnavailable("the message cannot be published at the moment")


async def read_no_page(request: PageRequest) -> Page:
    """Read no page: there is no database."""
    raise LogUnavailable("the tables cannot be read at the moment")


@dataclass(frozen=True, slots=True)
class Sources:
    """What the sessions of a process read from, and publish to."""

    hub: Hub
    history: HistoryReader
    read_snapshot: Callable[[frozenset[str], Mapping[str, RowAccess]], Awaitable[Snapshot]]
    """
    Reads the tables of channels: those rows that a client may see.

    Raises `SnapshotTooLarge` and `LogUnavailable`.
    """
    read_page: Callable[[PageRequest], Awaitable[Page]] = read_no_page
    """
    Reads a page of a table, at a place in the log after this call.

    Raises `SnapshotTooLarge`, `LogUnavailable`, and `CursorLost` for one that cannot follow the one
    before.
    """
    publish: Callable[[str, str, str, str | None], Awaitable[int]] = publish_nothing
    """
    Publishes JSON on a channel, as a type, to a recipient; returns the id of the transaction.

    Raises `MessageRefused` and `LogUnavailable`.
    """
    transactions: AwaitedTransactions = field(default_factory=AwaitedTransactions)
    problems: Problems = field(default_factory=Problems)
    """What gets the failures of a catch-up that nobody has foreseen."""
