"""Refreshes the states of the feeds that have subscribers on this node."""

from __future__ import annotations

import asyncio
import logging
from typing import NamedTuple

from brain.auth.identity import Claims
from brain.database.backoff import delays
from brain.database.connection import DATABASE_ERRORS, first_line
from brain.database.single_flight import SingleFlight
from brain.errors import BrainError, ClaimMissing, ConnectionEnded, LogUnavailable, SnapshotTooLarge
from brain.feeds.fanout import FeedFanout, FeedSubscriber
from brain.feeds.reader import CHANNEL, FeedDefinition, FeedReader, is_possible
from brain.feeds.state import FeedState, update_message
from brain.log_events import FEEDS_UNREADABLE
from brain.log_limit import LimitedLog
from brain.message.event import Batch, Event

logger = logging.getLogger(__name__)

FeedAddress = tuple[str, str | None]
"""The name of a feed, and its argument if it takes one."""

NO_CLAIMS: Claims = {}


class FeedStatistics(NamedTuple):
    live: int
    """Feeds that have subscribers here; each argument counts."""
    subscribers: int


class LiveFeed:
    """A feed that has subscribers, with one argument."""

    def __init__(self, definition: FeedDefinition, argument: str | None) -> None:
        self.definition = definition
        self.argument = argument
        self.fanout = FeedFanout()
        self.changed = asyncio.Event()
        """Set when its state may have changed."""
        self.task: asyncio.Task[None] | None = None
        self.is_querying = False
        """True while its query runs, which must not be cancelled."""
        self.failure: ConnectionEnded | None = None
        """Why its state cannot be sent at the moment."""

    @property
    def key(self) -> str | None:
        """The key of the only row that can change its state, if there is one."""
        return self.argument if self.definition.argument_is_key else None


class FeedRefresher:
    """
    Knows the feeds, and keeps the states of those that have subscribers here.

    Each of these has a task, which queries the state, sends it, and waits: for the interval between
    two states, and until an event on one of the feed's channels. However many rows change, a feed
    is queried once in that interval, and once more after the last change.
    """

    def __init__(self, reader: FeedReader, interval_seconds: float) -> None:
        self._reader = reader
        self._log = LimitedLog(logger)
        self._interval_seconds = interval_seconds
        self._definitions: dict[str, FeedDefinition] = {}
        self._definitions_changed = asyncio.Event()
        self._definitions_changed.set()
        self._shared: SingleFlight[None, None] = SingleFlight("feed definitions")
        self._live: dict[FeedAddress, LiveFeed] = {}
        self._index: dict[str, dict[str | None, set[LiveFeed]]] = {}
        """Which feeds an event may change: by its channel, and by the row's key or None."""
        self._tasks: set[asyncio.Task[None]] = set()

    def statistics(self) -> FeedStatistics:
        subscribers = sum(len(live.fanout) for live in self._live.values())
        return FeedStatistics(len(self._live), subscribers)

    def deliver(self, batch: Batch) -> None:
        """Refresh the states that a batch may have changed."""
        if not batch.follows:
            self._definitions_changed.set()
            for live in self._live.values():
                live.changed.set()
            return
        for event in batch.events:
            if event.channel == CHANNEL:
                self._definitions_changed.set()
            if event.channel in self._index:
                self._mark_changed(event)

    async def address(
        self, name: str, argument: str | None, claims: Claims = NO_CLAIMS
    ) -> FeedAddress | None:
        """
        Return the feed that a URL names for a client with these claims; None if there is none.

        The definitions are read again for an unknown one. Raises `ClaimMissing`, and what the
        database raises when it cannot be reached.
        """
        if not is_possible(argument):
            return None
        found = self._address(name, argument, claims)
        if found is None:
            # A connection that is being given up must not keep the caller waiting.
            async with asyncio.timeout(self._reader.timeout_seconds):
                await self._read_definitions()
            found = self._address(name, argument, claims)
        return found

    def subscribe(self, name: str, argument: str | None, subscriber: FeedSubscriber) -> LiveFeed:
        """
        Send a subscriber the state of a known feed, and each new one, until `unsubscribe`.

        Raises `ConnectionEnded` if the state cannot be sent at the moment, or the feed is gone.
        """
        live = self._live.get((name, argument))
        if live is None:
            if not self._has(name, argument):
                raise LogUnavailable(f"the feed {name} is gone")
            live = LiveFeed(self._definitions[name], argument)
            self._live[name, argument] = live
            self._add_to_index(live)
            live.task = asyncio.create_task(self._refresh(live), name=f"feed {name}")
            self._tasks.add(live.task)
            live.task.add_done_callback(self._tasks.discard)
        if live.failure is not None:
            raise type(live.failure)(str(live.failure))
        live.fanout.add(subscriber)
        return live

    def unsubscribe(self, live: LiveFeed, subscriber: FeedSubscriber) -> None:
        """
        Remove a subscriber; may be called again.

        The state is dropped with the last one: the next subscriber must not get an old one.
        """
        live.fanout.remove(subscriber)
        if not live.fanout.has_subscribers and live.failure is None:
            self._drop(live)
            if live.task is not None and not live.is_querying:
                live.task.cancel()

    async def run(self) -> None:
        """For ever, keep the definitions current; cancel the feeds' tasks in the end."""
        pauses = delays()
        try:
            while True:
                await self._definitions_changed.wait()
                self._definitions_changed.clear()
                try:
                    await self._read_definitions()
                except DATABASE_ERRORS as error:
                    text = "cannot read the definitions of feeds: %s"
                    reason = first_line(error)
                    self._log.log(FEEDS_UNREADABLE, type(error).__name__, text, reason)
                    self._definitions_changed.set()
                    await asyncio.sleep(next(pauses))
                else:
                    pauses = delays()
        finally:
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                await asyncio.wait(set(self._tasks))

    def _address(self, name: str, argument: str | None, claims: Claims) -> FeedAddress | None:
        definition = self._definitions.get(name)
        if definition is not None and definition.argument_claim is not None:
            if argument is not None:
                return None
            argument = claimed(claims, definition.argument_claim)
        return (name, argument) if self._has(name, argument) else None

    def _has(self, name: str, argument: str | None) -> bool:
        definition = self._definitions.get(name)
        return definition is not None and definition.takes_argument == (argument is not None)

    async def _read_definitions(self) -> None:
        """Read the definitions; callers share a read that begins after they called."""
        await self._shared.run_later(None, self._replace_definitions)

    async def _replace_definitions(self) -> None:
        """Go on with the definitions of now; refresh the feeds that they change."""
        self._definitions = definitions = await self._reader.definitions()
        for (name, argument), live in list(self._live.items()):
            if not self._has(name, argument) or (
                definitions[name].argument_claim != live.definition.argument_claim
            ):
                self._end(live, LogUnavailable(f"the feed {name} is gone"))
            elif definitions[name] != live.definition:
                self._remove_from_index(live)
                live.definition = definitions[name]
                self._add_to_index(live)
                live.changed.set()

    async def _refresh(self, live: LiveFeed) -> None:
        """Query and send a state, and each new one, as long as there are subscribers."""
        pauses = delays()
        try:
            while live.fanout.has_subscribers:
                live.changed.clear()
                live.is_querying = True
                await self._query(live)
                live.is_querying = False
                if live.failure is not None:
                    # Also without subscribers: they reconnect, and must not each run the query.
                    live.changed.set()
                    await asyncio.sleep(next(pauses))
                elif live.fanout.has_subscribers:
                    pauses = delays()
                    await asyncio.sleep(self._interval_seconds)
                    await live.changed.wait()
        finally:
            self._drop(live)
            name = live.definition.name
            live.fanout.end(LogUnavailable(f"the feed {name} cannot be read at the moment"))

    async def _query(self, live: LiveFeed) -> None:
        """Query a state, and send it; close the clients that wait for one if that fails."""
        name = live.definition.name
        try:
            state = await self._reader.state(
                name, live.argument, is_wanted=lambda: live.fanout.has_subscribers
            )
        except SnapshotTooLarge as reason:
            self._report(name, reason)
            self._end(live, reason)
        except LogUnavailable as reason:
            self._fail(live, reason)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # This task was not cancelled: the query was, because its connection was closed.
            self._report(name, error)
            self._fail(live, LogUnavailable(f"the feed {name} cannot be read at the moment"))
        except Exception as error:
            self._report(name, error)
            self._fail(live, LogUnavailable(f"the feed {name} cannot be read at the moment"))
        else:
            self._publish(live, state)

    def _publish(self, live: LiveFeed, state: FeedState | None) -> None:
        name = live.definition.name
        live.failure = None
        if state is not None:
            live.fanout.publish(update_message(name, state), state.etag)
        elif live.fanout.has_subscribers:  # otherwise it was not queried
            self._end(live, LogUnavailable(f"the feed {name} is gone"))

    def _fail(self, live: LiveFeed, reason: LogUnavailable) -> None:
        """Keep serving the last good state; fail only the clients that have none."""
        live.failure = reason
        live.fanout.end(reason, only_waiting=True)

    def _report(self, name: str, error: BaseException) -> None:
        is_expected = isinstance(error, (*DATABASE_ERRORS, BrainError))
        self._reader.problems.report(
            f"feed {name}",
            f"the feed {name} cannot be read: {first_line(error)}",
            unexpected=None if is_expected else error,
        )

    def _end(self, live: LiveFeed, reason: ConnectionEnded) -> None:
        live.failure = reason
        live.fanout.end(reason)
        live.changed.set()

    def _drop(self, live: LiveFeed) -> None:
        """Start afresh with the next subscriber."""
        address = live.definition.name, live.argument
        if self._live.get(address) is live:
            del self._live[address]
            self._remove_from_index(live)

    def _mark_changed(self, event: Event) -> None:
        by_key = self._index[event.channel]
        if event.key is None:  # no single row is meant
            changed: set[LiveFeed] = set().union(*by_key.values())
        else:
            changed = by_key.get(None, set()) | by_key.get(event.key_text, set())
        for live in changed:
            live.changed.set()

    def _add_to_index(self, live: LiveFeed) -> None:
        for channel in live.definition.channels:
            self._index.setdefault(channel, {}).setdefault(live.key, set()).add(live)

    def _remove_from_index(self, live: LiveFeed) -> None:
        for channel in set(live.definition.channels):
            by_key = self._index[channel]
            by_key[live.key].discard(live)
            if not by_key[live.key]:
                del by_key[live.key]
            if not by_key:
                del self._index[channel]


def claimed(claims: Claims, name: str) -> str:
    """Return the argument in a claim, which is a text or an integer. Raises `ClaimMissing`."""
    claim = claims.get(name)
    text = str(claim) if isinstance(claim, str | int) and not isinstance(claim, bool) else None
    if text is None or not is_possible(text):
        raise ClaimMissing(f"a token with the claim {name} is needed")
    return text
