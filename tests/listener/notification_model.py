"""
A model of writers and of nodes that park. It yields all steps that are possible next.

A node's steps are the calls that `BatchSource._follow` makes, one name for each:

    LISTEN, REGISTER    Notifications.listen: the server sends notifications; asyncpg drops them
                        until it registers its callback
    READ                BatchSource._read: Log.newest, which stores a snapshot and reads up to it
    FLUSH               Log.flush: the tick was committed without waiting for the disk
    PARK, UNPARK        Notifications.park, .unpark: the shared lock that shows writers parked nodes
    BEGIN, END          Log.begun_transaction: a transaction of its own, which takes some time
    CHECK               Log.oldest_transaction: have all transactions before that one ended?
    PAUSE               Notifications.wait for a moment, if they have not
    SLEEP               Notifications.wait for a notification, without the fallback poll

`Model.rest` decides which step comes next, as `BatchSource._rest` does. A writer takes a
transaction id (at the latest for its row), writes a row, looks for parked nodes (the last IF of the
capture trigger) and commits or rolls back. A commit makes its row visible, ends its id, and sends
its notification to the nodes that listen, where it arrives at any later time. A node may become
busy at any read and may lose its connections at any time. PostgreSQL may crash at any time: open
transactions are rolled back, and all nodes lose their connections. tests/listener/crash_model.py
has what a crash takes back of the log.

Two things are left out, since they only delay a node or wake it: the ids that ticks take, and two
writers that try the lock at the same time, one of which notifies needlessly.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import NamedTuple, TypeVar


class Step(StrEnum):
    """The next step of a node."""

    LISTEN = "sends LISTEN"
    REGISTER = "registers its callback"
    READ = "reads"
    FLUSH = "has its tick flushed"
    PARK = "parks"
    UNPARK = "releases its lock"
    BEGIN = "begins a transaction of its own"
    END = "ends it"
    CHECK = "checks whether all before that have ended"
    PAUSE = "waits a moment"
    SLEEP = "sleeps until a notification"


class WriterStep(StrEnum):
    BEGIN = "takes a transaction id"
    WRITE = "writes its row"
    LOOK = "looks for parked nodes"
    END = "ends"


class Writer(NamedTuple):
    steps_done: int = 0
    id: int = 0
    """Its transaction, while that is open; else 0."""
    notifies: bool = False


class Node(NamedTuple):
    next: Step = Step.LISTEN
    is_parked: bool = False
    settles_at: int = 0
    """`BatchSource._settles_at`; 0 for None."""
    own_id: int = 0
    """Its own transaction, while that is open; else 0."""
    listens: bool = False
    is_registered: bool = False
    on_the_way: bool = False
    """True while a notification is between the server and the callback."""
    is_notified: bool = False
    """The flag of `Notifications`."""
    unread: bool = False
    """True while a committed row has not been read here."""


class World(NamedTuple):
    """The state of all writers and nodes. Transaction ids count up from 1."""

    writers: tuple[Writer, ...]
    nodes: tuple[Node, ...]
    next_id: int = 1
    highest_ended: int = 0

    @property
    def snapshot_xmax(self) -> int:
        return self.highest_ended + 1

    @property
    def snapshot_xmin(self) -> int:
        """All ids below it have ended; a snapshot does not know ids above its xmax."""
        open_ids = [one.id for one in self.writers] + [one.own_id for one in self.nodes]
        return min([id for id in open_ids if id] + [self.snapshot_xmax])

    def after_end_of(self, id: int) -> World:
        return self._replace(highest_ended=max(self.highest_ended, id))

    def renumbered(self) -> World:
        """Return the same world with the lowest ids possible: only their order matters."""
        ids = {0, self.next_id, self.highest_ended}
        ids.update(one.id for one in self.writers)
        ids.update(id for one in self.nodes for id in (one.own_id, one.settles_at))
        rank = {id: number for number, id in enumerate(sorted(ids))}
        if rank[self.next_id] == self.next_id:
            return self
        nodes = [
            one._replace(own_id=rank[one.own_id], settles_at=rank[one.settles_at])
            for one in self.nodes
        ]
        writers = [one._replace(id=rank[one.id]) for one in self.writers]
        return World(tuple(writers), tuple(nodes), rank[self.next_id], rank[self.highest_ended])

    def sorted(self) -> World:
        """Return the same world with writers and nodes sorted: they are interchangeable."""
        return self._replace(writers=tuple(sorted(self.writers)), nodes=tuple(sorted(self.nodes)))


Changed = tuple[World, Node]
Part = TypeVar("Part")


def replaced(parts: tuple[Part, ...], number: int, part: Part) -> tuple[Part, ...]:
    return (*parts[:number], part, *parts[number + 1 :])


class Model:
    """
    The protocol: the possible outcomes of each step.

    A method that is named like a step of a node takes the world and the node before the step, and
    yields both as they may be after it. It yields nothing while the step must wait.
    """

    first_step = Step.LISTEN
    writer_steps = (WriterStep.BEGIN, WriterStep.WRITE, WriterStep.LOOK, WriterStep.END)

    def __init__(
        self,
        *,
        turns_busy: bool = True,
        loses_connections: bool = True,
        flushes: bool = False,
        crashes: bool = False,
        has_others: bool = False,
    ) -> None:
        self._turns_busy = turns_busy
        self._loses_connections = loses_connections
        self._flushes = flushes
        self._crashes = crashes
        self._has_others = has_others
        """True if other transactions may keep a node from seeing that all have ended."""

    def start(self, writers: int, nodes: int) -> World:
        return World((Writer(),) * writers, (Node(self.first_step),) * nodes)

    def moves(self, world: World) -> Iterator[tuple[str, World]]:
        """Yield every possible move, in words, with the world after it."""
        for number in range(len(world.writers)):
            for move, after in self._writer_moves(world, number):
                yield f"writer {number + 1} {move}", after.renumbered()
        for number, node in enumerate(world.nodes):
            for move, (after, changed) in self._node_moves(world, node):
                nodes = replaced(after.nodes, number, changed)
                yield f"node {number + 1} {move}", after._replace(nodes=nodes).renumbered()
        if self._crashes:
            yield "PostgreSQL crashes", self._after_crash(world).renumbered()

    def is_quiet(self, world: World) -> bool:
        """Return True if writers have ended, nodes sleep and no notification is pending."""
        return all(one.steps_done == len(self.writer_steps) for one in world.writers) and all(
            one.next is Step.SLEEP and not one.is_notified and not one.on_the_way
            for one in world.nodes
        )

    def rest(self, node: Node) -> Step:
        """Return the step that `BatchSource._rest` takes if the node is not busy."""
        if not node.is_parked:
            return Step.PARK
        return Step.CHECK if node.settles_at else Step.SLEEP

    def listen(self, world: World, node: Node) -> Iterator[Changed]:
        yield world, node._replace(listens=True, next=Step.REGISTER)

    def register(self, world: World, node: Node) -> Iterator[Changed]:
        yield world, node._replace(is_registered=True, next=Step.READ)

    def read(self, world: World, node: Node) -> Iterator[Changed]:
        node = node._replace(unread=False)
        yield from self.flush(world, node)
        if self._flushes:
            yield world, node._replace(next=Step.FLUSH)

    def flush(self, world: World, node: Node) -> Iterator[Changed]:
        yield world, node._replace(next=self.rest(node))
        if self._turns_busy:
            yield world, node._replace(next=Step.UNPARK if node.is_parked else Step.READ)

    def park(self, world: World, node: Node) -> Iterator[Changed]:
        yield world, node._replace(is_parked=True, next=Step.BEGIN)

    def unpark(self, world: World, node: Node) -> Iterator[Changed]:
        yield world, node._replace(is_parked=False, next=Step.READ)

    def begin(self, world: World, node: Node) -> Iterator[Changed]:
        begun = world._replace(next_id=world.next_id + 1)
        yield begun, node._replace(own_id=world.next_id, next=Step.END)

    def end(self, world: World, node: Node) -> Iterator[Changed]:
        settles = node._replace(own_id=0, settles_at=node.own_id, next=Step.READ)
        yield world.after_end_of(node.own_id), settles

    def check(self, world: World, node: Node) -> Iterator[Changed]:
        if world.snapshot_xmin >= node.settles_at:
            yield world, node._replace(settles_at=0, next=Step.READ)
        if self._has_others or world.snapshot_xmin < node.settles_at:
            yield world, node._replace(next=Step.PAUSE)

    def pause(self, world: World, node: Node) -> Iterator[Changed]:
        yield world, node._replace(is_notified=False, next=Step.READ)

    def sleep(self, world: World, node: Node) -> Iterator[Changed]:
        if node.is_notified:
            yield world, node._replace(is_notified=False, next=Step.READ)

    def _node_moves(self, world: World, node: Node) -> Iterator[tuple[str, Changed]]:
        for changed in getattr(self, node.next.name.lower())(world, node):
            yield node.next, changed
        if node.on_the_way:
            is_notified = node.is_notified or node.is_registered
            yield (
                "is notified",
                (
                    world,
                    node._replace(on_the_way=False, is_notified=is_notified),
                ),
            )
        if self._loses_connections:
            lost = self._disconnected(node)
            yield "loses its connections", (world.after_end_of(node.own_id), lost)

    def _disconnected(self, node: Node) -> Node:
        return Node(self.first_step, settles_at=node.settles_at, unread=node.unread)

    def _after_crash(self, world: World) -> World:
        done = Writer(len(self.writer_steps))
        writers = tuple([done if one.steps_done else one for one in world.writers])
        nodes = tuple(map(self._disconnected, world.nodes))
        return World(writers, nodes, world.next_id, world.next_id - 1)

    def _writer_moves(self, world: World, number: int) -> Iterator[tuple[str, World]]:
        writer = world.writers[number]
        if writer.steps_done == len(self.writer_steps):
            return
        step = self.writer_steps[writer.steps_done]
        writer = writer._replace(steps_done=writer.steps_done + 1)
        if step is WriterStep.END:
            ended = self._after(world.after_end_of(writer.id), number, Writer(writer.steps_done))
            yield "rolls back", ended
            yield "commits", ended._replace(nodes=tuple(after_commit(ended.nodes, writer.notifies)))
            return
        if step is WriterStep.BEGIN:
            writer = writer._replace(id=world.next_id)
            world = world._replace(next_id=world.next_id + 1)
        elif step is WriterStep.LOOK:
            writer = writer._replace(notifies=any(node.is_parked for node in world.nodes))
        yield step, self._after(world, number, writer)

    def _after(self, world: World, number: int, writer: Writer) -> World:
        return world._replace(writers=replaced(world.writers, number, writer))


def after_commit(nodes: Iterable[Node], notifies: bool) -> Iterator[Node]:
    """Yield the nodes after the commit of a writer."""
    for node in nodes:
        on_the_way = node.on_the_way or (notifies and node.listens)
        yield node._replace(unread=True, on_the_way=on_the_way)
