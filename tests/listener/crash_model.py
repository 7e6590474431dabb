"""
A model of ticks that reach the disk late, and of crashes of PostgreSQL. It yields all next steps.

The WAL is a list of records, of which the first `flushed` are on the disk. A writer appends its
commit, and is seen by others once the commit is on the disk; one with asynchronous commit is seen
at once. A node reads in the steps of `brain.newest` and of `BatchSource`:

    LOOK      take a snapshot, and read what it shows
    PLACE     read the position in the WAL, which is behind that snapshot
    TICK      commit a tick: without waiting for the disk if all up to that position is on it
    DELIVER   send what was read, once the tick can be seen
    FLUSH     have all ticks flushed

A crash takes back every record that is not on the disk. Then a node reads on: the log may hold its
tick (`RESUME`), or lack it: it reads again after the last tick of which it knows that it was on the
disk, and leaves out what it has delivered (`READ_AGAIN`).
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import NamedTuple

Events = frozenset[int]


class Step(StrEnum):
    LOOK = "looks"
    PLACE = "reads the position in the WAL"
    TICK = "commits a tick"
    DELIVER = "delivers"
    FLUSH = "has its tick flushed"
    RESUME = "reads on after a crash"


class Record(NamedTuple):
    """A commit in the WAL: of an event, or of a tick that shows these events."""

    event: int | None = None
    shows: Events = frozenset()
    is_awaited: bool = False
    """True if it is seen only once it is on the disk."""
    nonce: int = 0
    """Of a tick: one that is cut again after a crash has another one."""


class Node(NamedTuple):
    next: Step = Step.LOOK
    tick: Record | None = None
    """The tick up to which it has delivered; None: that before all events."""
    safe: Record | None = None
    """The last tick of which it knows that it is on the disk."""
    seen: Events = frozenset()
    place: int = 0
    cut: Record | None = None
    received: tuple[int, ...] = ()
    """The events that its client was sent, in their order."""
    resets: int = 0


class World(NamedTuple):
    wal: tuple[Record, ...] = ()
    flushed: int = 0
    unwritten: tuple[int, ...] = ()
    """The events that writers have yet to commit."""
    node: Node = Node()
    crashes: int = 0

    def seen(self) -> Events:
        """Return the events that a snapshot shows."""
        return frozenset(
            one.event
            for number, one in enumerate(self.wal)
            if one.event is not None and self._is_seen(number)
        )

    def holds(self, tick: Record | None) -> bool:
        """Return True if the log has this tick."""
        return tick is None or tick in self.wal

    def is_quiet(self) -> bool:
        """Return True if everything is on the disk, and the node waits for a notification."""
        is_waiting = self.node.next is Step.TICK and self.node.seen == shown(self.node.tick)
        is_written = not self.unwritten and self.flushed == len(self.wal)
        return is_waiting and is_written and self.node.seen == self.seen()

    def _is_seen(self, number: int) -> bool:
        return number < self.flushed or not self.wal[number].is_awaited


class Model:
    """The protocol: the possible outcomes of each step."""

    def __init__(self, *, is_async: bool, most_crashes: int = 2) -> None:
        self._is_async = is_async
        """True if writers commit without waiting for the disk."""
        self._most_crashes = most_crashes

    def moves(self, world: World) -> Iterator[tuple[str, World]]:
        """Yield every possible move, in words, with the world after it."""
        for event in world.unwritten[:1]:
            commit = Record(event, is_awaited=not self._is_async)
            yield (
                f"event {event} is committed",
                world._replace(wal=(*world.wal, commit), unwritten=world.unwritten[1:]),
            )
        if world.flushed < len(world.wal):
            yield "the disk has one more record", world._replace(flushed=world.flushed + 1)
        if world.crashes < self._most_crashes:
            yield "PostgreSQL crashes", self._crashed(world)
        for after in getattr(self, world.node.next.name.lower())(world, world.node):
            yield world.node.next, after

    def look(self, world: World, node: Node) -> Iterator[World]:
        yield world._replace(node=node._replace(seen=world.seen(), next=Step.PLACE))

    def place(self, world: World, node: Node) -> Iterator[World]:
        yield world._replace(node=node._replace(place=len(world.wal), next=Step.TICK))

    def tick(self, world: World, node: Node) -> Iterator[World]:
        if node.seen == shown(node.tick):
            # Otherwise it waits for the next notification.
            if node.seen != world.seen():
                yield world._replace(node=node._replace(next=Step.LOOK))
            return
        is_awaited = not self.is_durable(world, node)
        cut = Record(shows=node.seen, is_awaited=is_awaited, nonce=world.crashes)
        changed = node._replace(cut=cut, next=Step.DELIVER)
        yield world._replace(wal=(*world.wal, cut), node=changed)

    def deliver(self, world: World, node: Node) -> Iterator[World]:
        assert node.cut is not None
        if node.cut.is_awaited and world.wal.index(node.cut) >= world.flushed:
            return
        yield world._replace(node=self.sent(node, node.cut, node.tick, next=Step.FLUSH))

    def flush(self, world: World, node: Node) -> Iterator[World]:
        changed = node._replace(safe=node.tick, next=Step.LOOK)
        yield world._replace(flushed=len(world.wal), node=changed)
        # A busy node reads on, and knows later that it is on the disk.
        yield world._replace(node=node._replace(next=Step.LOOK))

    def resume(self, world: World, node: Node) -> Iterator[World]:
        if world.holds(node.tick):
            yield world._replace(node=node._replace(next=Step.LOOK))
            return
        cut = Record(shows=world.seen(), nonce=world.crashes)
        delivered = shown(node.tick)
        if not world.holds(node.safe) or not delivered <= cut.shows:
            changed = node._replace(tick=cut, safe=cut, resets=node.resets + 1, next=Step.LOOK)
        else:
            changed = self.read_again(node, cut)
        # It is cut by a commit that waits for the disk.
        yield world._replace(
            wal=(*world.wal, cut), flushed=len(world.wal) + 1, node=changed._replace(safe=cut)
        )

    def read_again(self, node: Node, cut: Record) -> Node:
        return self.sent(node, cut, node.tick, next=Step.LOOK)

    def is_durable(self, world: World, node: Node) -> bool:
        """Return True if the tick need not wait for the disk."""
        return node.place <= world.flushed

    def sent(self, node: Node, cut: Record, after: Record | None, next: Step) -> Node:
        events = tuple(sorted(cut.shows - shown(after)))
        return node._replace(tick=cut, received=(*node.received, *events), next=next)

    def _crashed(self, world: World) -> World:
        node = world.node._replace(next=Step.RESUME, seen=frozenset(), place=0, cut=None)
        return World(
            world.wal[: world.flushed], world.flushed, world.unwritten, node, world.crashes + 1
        )


def shown(tick: Record | None) -> Events:
    return frozenset() if tick is None else tick.shows


def fault(world: World) -> str | None:
    """Return what has gone wrong for the client, or None."""
    node = world.node
    committed = {one.event for one in world.wal if one.event is not None}
    if len(set(node.received)) < len(node.received):
        return "an event was delivered twice"
    if not committed.issuperset(node.received):
        return "an event was delivered that a crash took back"
    if node.resets:
        return "a live client was sent a reset"
    if world.is_quiet() and not committed <= set(node.received):
        return "an event is lost"
    return None
