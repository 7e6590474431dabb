"""Reads the log, and cuts ticks."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass

import asyncpg

from brain.database.log_statements import (
    AFTER,
    MOST_SECONDS,
    NEWEST,
    RECENT,
    SINCE,
    SPLIT,
    WAYS,
    Statements,
)
from brain.errors import CursorLost
from brain.message.cursor import END_OF_TICK, Cursor, LogStart
from brain.message.event import Batch, Event, Operation
from brain.message.json_text import held_bytes
from brain.problems import Problems

# Limits of a page. One event may go beyond that of bytes.
PAGE_EVENTS = 1000
PAGE_BYTES = 4 * 1024 * 1024
# Of one that does not come in time, such a part is asked for.
SHRINK = 32

# By tracemalloc, an event takes 335 bytes beside its texts, and 65 more if it is alone in its tick.
# An update of `tasks` takes 760 in all: its texts have 282 characters.
OBJECT_BYTES = 400


# What PostgreSQL says of a text without an equivalent in UTF-8, and of damaged data.
UNREADABLE = (
    asyncpg.UntranslatableCharacterError,
    asyncpg.CharacterNotInRepertoireError,
    asyncpg.DataCorruptedError,
    asyncpg.ProgramLimitExceededError,
    UnicodeDecodeError,
)

OPERATIONS = {operation.value.encode(): operation for operation in Operation}

LogConnection = asyncpg.Connection | asyncpg.pool.PoolConnectionProxy
"""A connection, or one that a pool lends."""


@dataclass(frozen=True, slots=True)
class NewestBatch(Batch):
    """A batch up to a tick that a crash of PostgreSQL may take back; its events are safe."""

    written: int | None = 0
    """
    Up to this position in the WAL everything has to be on the disk for its tick to be safe, and all
    ticks before; None: the tick was committed without waiting for the disk.
    """
    flushed: int = 0
    """The position up to which everything was on the disk, after the read."""


class PageSize:
    """How many events to ask for: fewer after a page that did not come in time."""

    def __init__(self) -> None:
        self.events = PAGE_EVENTS

    def shrink(self) -> None:
        """Ask for a part."""
        self.events = max(1, self.events // SHRINK)

    def grow(self) -> None:
        """Ask for twice as many."""
        self.events = min(2 * self.events, PAGE_EVENTS)


class Log:
    """
    Cuts ticks and reads batches, over one connection that nothing else uses at the same time.

    Every call raises `TimeoutError` if the server does not answer within `timeout_seconds`.
    """

    def __init__(
        self,
        connection: LogConnection,
        timeout_seconds: float,
        problems: Problems | None = None,
        page_size: PageSize | None = None,
    ) -> None:
        """`problems` gets what was repaired; a `page_size` may be shared."""
        self._connection = connection
        self._timeout_seconds = timeout_seconds
        self._problems = problems or Problems()
        self._page_size = page_size or PageSize()
        self._has_ticked = False
        """True once it is known that the log belongs to the server of this connection."""

    def when_closed(self, callback: Callable[[], None]) -> None:
        """Call `callback` when the connection is found to be closed."""
        self._connection.add_termination_listener(lambda _: callback())

    async def tick(self) -> Cursor:
        """Cut a tick if anything is new; everything committed before lies before its end."""
        row = await self._row("SELECT id, nonce FROM brain.tick()")
        self._has_ticked = True
        return Cursor(row["id"], row["nonce"])

    async def skip_ticks(self, count: int) -> Cursor:
        """Cut a tick, and so many empty ones after it; return the end of the last one."""
        row = await self._row("SELECT id, nonce FROM brain.skip_ticks($1)", count)
        return Cursor(row["id"], row["nonce"])

    async def newest(self, cursor: Cursor) -> NewestBatch:
        """
        Cut a tick if anything is new, and return what follows `cursor`.

        A page like that of `after`; it is all there is if it ends with a tick.
        """
        if not self._has_ticked:
            await self.tick()
        batch, end = await self._read(NEWEST, cursor)
        return NewestBatch(
            batch.events,
            batch.cursor,
            tick_at=end["at"],
            written=end["written"],
            flushed=end["flushed"],
        )

    async def flush(self) -> None:
        """Return once all that was committed before is on the disk."""
        await self._row("SELECT brain.flush()")

    async def after(self, cursor: Cursor) -> Batch:
        """
        Return a page of what follows `cursor`: at most `PAGE_EVENTS` events, of some `PAGE_BYTES`.

        There is more as long as the batch's cursor lies before the newest tick.

        Raises `CursorLost` if the log does not reach back to the cursor, or never knew it.
        """
        batch, _ = await self._read(AFTER, cursor)
        return batch

    async def recent(self, seconds: float, events: int) -> list[Cursor]:
        """
        Return the ends of the latest ticks, oldest first.

        What follows the first of them goes back about so many seconds, and not much further than so
        many events.
        """
        rows = await self._rows(RECENT, seconds, events)
        return [Cursor(row["id"], row["nonce"]) for row in rows]

    async def since(self, seconds: float) -> LogStart:
        """
        Return the place after which lies all that was logged in the last so many seconds.

        It is the last tick before that time, by the clock of the database, or the oldest one of a
        log that does not go back so far.
        """
        row = await self._row(SINCE, min(seconds, MOST_SECONDS))
        return LogStart(Cursor(row["id"], row["nonce"]), row["at"])

    async def holds(self, cursor: Cursor) -> bool:
        """Return True if the log has the tick of `cursor`, with its nonce."""
        row = await self._row(
            "SELECT EXISTS (SELECT FROM brain.ticks WHERE id = $1 AND nonce = $2) AS holds",
            cursor.tick,
            cursor.nonce,
        )
        return bool(row["holds"])

    async def begun_transaction(self) -> int:
        """
        Begin and end a transaction; return its id, below which lie all that began before.

        Not the xmax of a snapshot: that is one above the last transaction which has ended, and
        above it there may be others that have begun.
        """
        row = await self._row("SELECT pg_current_xact_id()::text::bigint AS id")
        return int(row["id"])

    async def oldest_transaction(self) -> int:
        """Return the id below which every transaction has ended."""
        row = await self._row("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS id")
        return int(row["id"])

    async def _read(self, statements: Statements, cursor: Cursor) -> tuple[Batch, asyncpg.Record]:
        """
        Read a page, whatever is in it; return it with the last row, which holds no event.

        Of a page that does not come in time a part is asked for. Of one that cannot be read, texts
        are repaired. If a single event can be read in neither way, its channel gets a reset.
        """
        care, most = 0, self._page_size.events
        while True:
            try:
                page = await self._page(statements[care], cursor, most, is_repaired=care > 0)
            except (TimeoutError, *UNREADABLE) as error:
                is_late = isinstance(error, TimeoutError)
                easier = easier_than(care, most) if is_late else more_careful_than(care, most)
                if easier is None:
                    raise
                care, most = easier
                if is_late:
                    self._page_size.shrink()
                else:
                    text = f"what follows {cursor} cannot be read as it is: {error}"
                    self._problems.report("log", text)
            else:
                self._page_size.grow()
                return page

    async def _page(
        self, statement: str, cursor: Cursor, most: int, *, is_repaired: bool
    ) -> tuple[Batch, asyncpg.Record]:
        rows = await self._connection.fetch(
            statement,
            cursor.tick,
            cursor.nonce,
            cursor.event_id,
            most,
            PAGE_BYTES * most // PAGE_EVENTS,
            timeout=self._timeout_seconds,
        )
        end = rows.pop() if rows else None
        if end is None or end["channel"] is not None:
            raise CursorLost(f"the log does not hold what follows {cursor}")
        if is_repaired:
            self._report_repaired(rows)
        events = tuple([event_in(row) for row in rows])
        place = Cursor(end["at_tick"], end["at_nonce"], end["id"])
        if cursor.ends_tick and place.ends_tick:
            find_ends(events)
        else:
            find_ends(events, *await self._split(events, cursor, place))
        return Batch(events, place), end

    def _report_repaired(self, rows: Iterable[asyncpg.Record]) -> None:
        for row in rows:
            if row.get("is_repaired", True):
                channel, key = row["channel"], row["key"]
                text = f"an event was repaired, or cannot be read: {key or 'without a key'}"
                self._problems.report(f"log {channel}", text, channel=channel)

    async def _split(
        self, events: Iterable[Event], start: Cursor, end: Cursor
    ) -> tuple[set[int], set[int]]:
        """Return the transactions that began before a page, and those that go on after it."""
        first = {str(one.transaction_id) for one in events if one.tick == start.tick}
        last = {str(one.transaction_id) for one in events if one.tick == end.tick}
        row = await self._row(
            SPLIT,
            [] if start.ends_tick else list(first),
            start.event_id,
            END_OF_TICK,
            [] if end.ends_tick else list(last),
            end.event_id,
        )
        return set(row["begun"]), set(row["unfinished"])

    async def _rows(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        return await self._connection.fetch(query, *arguments, timeout=self._timeout_seconds)

    async def _row(self, query: str, *arguments: object) -> asyncpg.Record:
        (row,) = await self._rows(query, *arguments)
        return row


def easier_than(care: int, most: int) -> tuple[int, int] | None:
    """Return the way, and the number of events, to try after a page that has not come in time."""
    if most > 1:
        return care, max(1, most // SHRINK)
    last = len(WAYS) - 1
    return None if care == last else (last, 1)


def more_careful_than(care: int, most: int) -> tuple[int, int] | None:
    """Return the way, and the number of events, to try after a page that cannot be read."""
    if care and most > 1:
        return care, most // 2
    return None if care + 1 == len(WAYS) else (care + 1, most)


def find_ends(
    events: Iterable[Event], begun: Container[int] = (), unfinished: Container[int] = ()
) -> None:
    """Have the last event of each transaction say so: `Event.ends`."""
    first: dict[int, int] = {}
    last: dict[int, Event] = {}
    for event in events:
        first.setdefault(event.transaction_id, event.id)
        last[event.transaction_id] = event
    for transaction_id, event in last.items():
        if transaction_id not in unfinished:
            event.ends = 0 if transaction_id in begun else first[transaction_id]


def event_in(row: asyncpg.Record) -> Event:
    """Return the event in a row of the log."""
    key, data, old = row["key"], row["data"], row["old"]
    data = None if data is None else one_line(data)
    old = None if old is None else one_line(old)
    rule_values, old_rule_values = row["rule_values"], row["old_rule_values"]
    omitted = tuple(row["omitted"] or ())
    texts = (key, data, old, rule_values, old_rule_values, *omitted)
    return Event(
        tick=row["at_tick"],
        nonce=row["at_nonce"],
        id=row["id"],
        at=row["at"],
        channel=row["channel"],
        operation=OPERATIONS[row["operation"]],
        key=key,
        data=data,
        old=old,
        size_bytes=OBJECT_BYTES + sum([held_bytes(text) for text in texts if text is not None]),
        type=row["type"],
        recipient=row["recipient"],
        omitted=omitted,
        rule_values=rule_values,
        old_rule_values=old_rule_values,
        transaction_id=row["transaction_id"],
    )


def one_line(text: str) -> str:
    """Return JSON without the line breaks that a column of type json may have between its parts."""
    if text is None or ("\n" not in text and "\r" not in text):
        return text
    return text.replace("\n", " ").replace("\r", " ")
