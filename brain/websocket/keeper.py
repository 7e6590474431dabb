"""Sees that everybody who follows a feed has its newest state."""

from __future__ import annotations

import asyncio
import logging
import time

from brain.database.connection import DISCONNECTIONS, told
from brain.database.feeds import CHANNEL, FeedDefinition, FeedReader, is_possible
from brain.errors import ConnectionEnded, LogUnreachable, SnapshotTooLarge
from brain.hub.feed import Feed, Follower
from brain.listener.backoff import delays
from brain.message.event import Batch, Event
from brain.message.feed_state import update_frame
from brain.message.topic import key_text

# How many queries of feeds run at a time: others need the few connections too.
MOST_QUERIES = 2

# How often it is logged of one feed that it cannot be read.
BETWEEN_WARNINGS_SECONDS = 60.0

logger = logging.getLogger(__name__)

Place = tuple[str, str | None]
"""The name of a feed, and its argument if it takes one."""


class Kept:
    """One state that somebody follows, looked at again when it may have changed."""

    def __init__(self, definition: FeedDefinition, argument: str | None) -> None:
        self.definition = definition
        self.argument = argument
        self.feed = Feed()
        self.stirred = asyncio.Event()
        """Set when there is something to look at."""
        self.task: asyncio.Task[None] | None = None
        self.is_asking = False
        """Whether the database is being asked, which is not to be broken off."""
        self.trouble: ConnectionEnded | None = None
        """Why its state cannot be told at the moment."""

    @property
    def key(self) -> str | None:
        """That of the only row that matters, if there is one."""
        return self.argument if self.definition.argument_is_key else None


class FeedKeeper:
    """
    Knows the feeds, and keeps the states of those that somebody follows here.

    Each of these has a task, which asks for the state, tells it, and waits: for as long as lies
    between two states at least, and until an event on one of the feed's channels. However many
    rows change, a feed is asked for once in that time, and after the last change once more.
    """

    def __init__(self, reader: FeedReader, seconds_between: float) -> None:
        self._reader = reader
        self._seconds_between = seconds_between
        self._definitions: dict[str, FeedDefinition] = {}
        self._outdated = asyncio.Event()
        self._outdated.set()
        self._looking = asyncio.Lock()
        self._looks_begun = 0
        self._newest_look = 0
        """The number of the look that the definitions come from."""
        self._kept: dict[Place, Kept] = {}
        self._waiting: dict[str, dict[str | None, set[Kept]]] = {}
        """Whom an event wakes: by its channel, and by the row's key where only that matters."""
        self._queries = asyncio.Semaphore(MOST_QUERIES)
        self._tasks: set[asyncio.Task[None]] = set()
        self._warned_at: dict[str, float] = {}

    def wake(self, batch: Batch) -> None:
        """Have those states looked at again that a batch may have changed."""
        if not batch.follows:
            self._outdated.set()
            for kept in self._kept.values():
                kept.stirred.set()
            return
        for event in batch.events:
            if event.channel == CHANNEL:
                self._outdated.set()
            if event.channel in self._waiting:
                self._wake_for(event)

    async def knows(self, name: str, argument: str | None) -> bool:
        """
        Whether there is such a feed; one that is not known is looked for.

        Raises what the database raises when it cannot be asked.
        """
        if not is_possible(argument):
            return False
        if not self._has(name, argument):
            await self._look()
        return self._has(name, argument)

    def follow(self, name: str, argument: str | None, follower: Follower) -> Kept:
        """
        Tell a follower the state of a feed that is known, as soon as there is one, and each new
        one, until `leave` is called.

        Raises `ConnectionEnded` if the state cannot be told at the moment, or is gone meanwhile.
        """
        kept = self._kept.get((name, argument))
        if kept is None:
            if not self._has(name, argument):
                raise LogUnreachable(f"the feed {name} is gone")
            kept = Kept(self._definitions[name], argument)
            self._kept[name, argument] = kept
            self._enter(kept)
            kept.task = asyncio.create_task(self._keep(kept), name=f"feed {name}")
            self._tasks.add(kept.task)
            kept.task.add_done_callback(self._tasks.discard)
        if kept.trouble is not None:
            raise type(kept.trouble)(str(kept.trouble))
        kept.feed.follow(follower)
        return kept

    def leave(self, kept: Kept, follower: Follower) -> None:
        """
        Forget a follower; may be called again.

        With the last one goes the state: who comes next is not to be told an old one.
        """
        kept.feed.leave(follower)
        if not kept.feed.is_heard and kept.trouble is None:
            self._forget(kept)
            if kept.task is not None and not kept.is_asking:
                kept.task.cancel()

    async def keep(self) -> None:
        """Learn for ever which feeds there are; see that everything ends that was begun here."""
        waiting = delays()
        try:
            while True:
                await self._outdated.wait()
                self._outdated.clear()
                try:
                    await self._look()
                except DISCONNECTIONS as error:
                    logger.warning("cannot read which feeds there are: %s", told(error))
                    self._outdated.set()
                    await asyncio.sleep(next(waiting))
                else:
                    waiting = delays()
        finally:
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                await asyncio.wait(set(self._tasks))

    def _has(self, name: str, argument: str | None) -> bool:
        definition = self._definitions.get(name)
        return definition is not None and definition.takes_argument == (argument is not None)

    async def _look(self) -> None:
        """Read the definitions, once for all who wait for a look that begins after they asked."""
        begun = self._looks_begun
        async with self._looking:
            if self._newest_look > begun:
                return
            self._looks_begun += 1
            number = self._looks_begun
            definitions = await self._reader.definitions()
            self._newest_look = number
            self._take(definitions)

    def _take(self, definitions: dict[str, FeedDefinition]) -> None:
        """Go on with these; where a feed was changed, its state is looked at again."""
        self._definitions = definitions
        for (name, argument), kept in list(self._kept.items()):
            if not self._has(name, argument):
                self._end(kept, LogUnreachable(f"the feed {name} is gone"))
            elif definitions[name] != kept.definition:
                self._remove(kept)
                kept.definition = definitions[name]
                self._enter(kept)
                kept.stirred.set()

    async def _keep(self, kept: Kept) -> None:
        """Tell a state and each new one as long as anybody follows it."""
        waiting = delays()
        try:
            while kept.feed.is_heard:
                kept.stirred.clear()
                kept.is_asking = True
                async with self._queries:
                    if kept.feed.is_heard:  # still
                        await self._tell(kept)
                kept.is_asking = False
                if kept.trouble is not None:
                    # Also if everybody has gone: they come back, and not each of them is to ask.
                    kept.stirred.set()
                    await asyncio.sleep(next(waiting))
                elif kept.feed.is_heard:
                    waiting = delays()
                    await asyncio.sleep(self._seconds_between)
                    await kept.stirred.wait()
        finally:
            self._forget(kept)
            kept.feed.end(LogUnreachable("the feed cannot be read at the moment"))

    async def _tell(self, kept: Kept) -> None:
        """Ask for a state, and tell it; or tell those who wait for the first one to come back."""
        name = kept.definition.name
        try:
            state = await self._reader.state(name, kept.argument)
        except SnapshotTooLarge as reason:
            self._warn(kept, reason)
            self._end(kept, reason)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # By nobody: the connection was cut under the query.
            self._fail(kept, error)
        except Exception as error:
            self._fail(kept, error)
        else:
            kept.trouble = None
            if state is None:
                self._end(kept, LogUnreachable(f"the feed {name} is gone"))
            elif state.mark != kept.feed.mark:
                kept.feed.tell(update_frame(name, state), state.mark)

    def _fail(self, kept: Kept, error: BaseException) -> None:
        """Leave those alone who have a state: what they have was true, and they get the next."""
        self._warn(kept, error)
        kept.trouble = LogUnreachable("the feed cannot be read at the moment")
        kept.feed.end(kept.trouble, only_untold=True)

    def _warn(self, kept: Kept, error: BaseException) -> None:
        name, now = kept.definition.name, time.monotonic()
        if kept.trouble is None and now >= self._warned_at.get(name, -1e9):
            self._warned_at[name] = now + BETWEEN_WARNINGS_SECONDS
            unexpected = None if isinstance(error, DISCONNECTIONS) else error
            logger.warning("the feed %s cannot be read: %s", name, told(error), exc_info=unexpected)

    def _end(self, kept: Kept, reason: ConnectionEnded) -> None:
        kept.trouble = reason
        kept.feed.end(reason)
        kept.stirred.set()

    def _forget(self, kept: Kept) -> None:
        """Begin anew with whoever comes next."""
        place = kept.definition.name, kept.argument
        if self._kept.get(place) is kept:
            del self._kept[place]
            self._remove(kept)

    def _wake_for(self, event: Event) -> None:
        waiting = self._waiting[event.channel]
        if event.key is None:  # no single row is meant
            woken: set[Kept] = set().union(*waiting.values())
        else:
            woken = waiting.get(None, set()) | waiting.get(key_text(event.key), set())
        for kept in woken:
            kept.stirred.set()

    def _enter(self, kept: Kept) -> None:
        for channel in kept.definition.channels:
            self._waiting.setdefault(channel, {}).setdefault(kept.key, set()).add(kept)

    def _remove(self, kept: Kept) -> None:
        for channel in set(kept.definition.channels):
            waiting = self._waiting[channel]
            waiting[kept.key].discard(kept)
            if not waiting[kept.key]:
                del waiting[kept.key]
            if not waiting:
                del self._waiting[channel]
