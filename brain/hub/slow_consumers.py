"""The subscribers that lag, the turns in which they are fed, and those that are dropped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from brain.errors import SlowConsumer
from brain.hub.subscriber import CATCHING_UP, Subscriber


def in_next_turn(work: Callable[[], None]) -> None:
    """Run `work` in the next turn of the event loop."""
    asyncio.get_running_loop().call_soon(work)


class SlowConsumers:
    """
    Knows which subscribers have not been sent everything.

    One that could be written to is ready, and waits for its turn: one is fed per turn of the event
    loop, so that hundreds that become ready at once hold up no other client.
    """

    def __init__(
        self,
        feed: Callable[[Subscriber], None],
        later: Callable[[Callable[[], None]], None] = in_next_turn,
    ) -> None:
        """`feed` writes the next chunk to a subscriber."""
        self._feed = feed
        self._later = later
        self.lagging: set[Subscriber] = set()
        """All of them; to be changed by the methods alone."""
        self.ahead: set[Subscriber] = set()
        """Of these, those with a cursor ahead of this node; to be changed likewise."""
        self._ready: dict[Subscriber, None] = {}
        """In the order of their turns."""
        self._has_next_turn = False

    def add(
        self, subscriber: Subscriber, *, is_ready: bool = False, is_ahead: bool = False
    ) -> None:
        """Add a subscriber; one that is ready gets a turn, one that is ahead waits for the node."""
        self.lagging.add(subscriber)
        if is_ahead:
            self.ahead.add(subscriber)
        if is_ready:
            self._ready[subscriber] = None
            self._take_next_turn()

    def suspend(self, subscriber: Subscriber) -> None:
        """Take a subscriber out for as long as it is fed; it keeps its turn, if it has one."""
        self.lagging.discard(subscriber)
        self.ahead.discard(subscriber)

    def remove(self, subscriber: Subscriber) -> None:
        self.suspend(subscriber)
        self._ready.pop(subscriber, None)

    def drop_fallen_off(self, first: int) -> None:
        """Drop those that the ring has left behind: its oldest event has the number `first`."""
        for subscriber in [one for one in self.lagging if one.position < first]:
            self.drop(subscriber)

    def drop(self, subscriber: Subscriber) -> None:
        """Stop feeding a subscriber, and have its client closed."""
        self.remove(subscriber)
        subscriber.position = CATCHING_UP
        subscriber.on_gap(SlowConsumer("the client reads more slowly than messages come"))

    def _feed_next(self) -> None:
        """Feed one ready subscriber; the next one waits for a turn of its own."""
        self._has_next_turn = False
        subscriber = next(iter(self._ready), None)
        if subscriber is None:
            return
        del self._ready[subscriber]
        if not subscriber.is_paused:
            self._feed(subscriber)
        self._take_next_turn()

    def _take_next_turn(self) -> None:
        if self._ready and not self._has_next_turn:
            self._has_next_turn = True
            self._later(self._feed_next)
