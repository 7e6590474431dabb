"""
A model of writers and of nodes that park: what may happen next, in any order.

A node's steps are the calls that `BatchSource._follow` makes, one name for each:

    LISTEN, REGISTER    Notifications.listen: the server sends; asyncpg drops what comes until it
                        registers
    READ                BatchSource._read: the snapshot that Log.tick stores, then Log.after
    PARK, UNPARK        Notifications.park, .unpark: the shared lock that shows writers parked nodes
    BEGIN, END          Log.begun_transaction: a transaction of its own, not over at once
    CHECK               Log.oldest_transaction: have all ended that began before it?
    PAUSE               Notifications.wait for a moment, as they have not
    SLEEP               Notifications.wait until one comes; the poll that backs it up is left out

Which comes next is decided in `Model.rest`, as in `BatchSource._rest`. A writer takes a transaction
id, writes a row (the first to need the id), looks for parked nodes (the WHEN of the statement
trigger) and ends, by a commit or not. At a commit its row becomes visible, its id has ended, and
its notification is on the way to the nodes that listen; it arrives at any time after. A node may
turn busy at every read and may lose its connections at any time.

Left out, since they only delay a node or wake it: the ids that ticks take, and two writers that try
the lock at the same time, of which one notifies needlessly.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import NamedTuple, TypeVar


class Step(StrEnum):
    """What a node does next."""

    LISTEN = "sends LISTEN"
    REGISTER = "registers its callback"
    READ = "reads"
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
    """Whether a notification is between the server and the callback."""
    is_notified: bool = False
    """The flag of `Notifications`."""
    unread: bool = False
    """Whether a row is committed that was not yet read here."""


class World(NamedTuple):
    """Everything that matters for what may happen next. Transaction ids count up from 1."""

    writers: tuple[Writer, ...]
    nodes: tuple[Node, ...]
    next_id: int = 1
    highest_ended: int = 0

    @property
    def snapshot_xmax(self) -> int:
        return self.highest_ended + 1

    @property
    def snapshot_xmin(self) -> int:
        """All below it have ended; what has begun above the xmax is unknown to a snapshot."""
        open_ids = [one.id for one in self.writers] + [one.own_id for one in self.nodes]
        return min([id for id in open_ids if id] + [self.snapshot_xmax])

    def after_end_of(self, id: int) -> World:
        return self._replace(highest_ended=max(self.highest_ended, id))

    def renumbered(self) -> World:
        """Return the same with the lowest ids possible: only their order matters."""
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
        """Return the same with writers and nodes in one order: which is which does not matter."""
        return self._replace(writers=tuple(sorted(self.writers)), nodes=tuple(sorted(self.nodes)))


Changed = tuple[World, Node]
Part = TypeVar("Part")


def replaced(parts: tuple[Part, ...], number: int, part: Part) -> tuple[Part, ...]:
    return (*parts[:number], part, *parts[number + 1 :])


class Model:
    """
    The protocol: for each step, what may come of it.

    A method that is named like a step of a node takes the world and the node before it, and yields
    them as they may be after it; nothing if the step must wait.
    """

    first_step = Step.LISTEN
    writer_steps = (WriterStep.BEGIN, WriterStep.WRITE, WriterStep.LOOK, WriterStep.END)

    def __init__(
        self,
        *,
        turns_busy: bool = True,
        loses_connections: bool = True,
        has_others: bool = False,
    ) -> None:
        self._turns_busy = turns_busy
        self._loses_connections = loses_connections
        self._has_others = has_others
        """Whether other transactions may keep a node from seeing that all have ended."""

    def start(self, writers: int, nodes: int) -> World:
        return World((Writer(),) * writers, (Node(self.first_step),) * nodes)

    def moves(self, world: World) -> Iterator[tuple[str, World]]:
        """Yield what may happen next, in words, and what the world is like then."""
        for number in range(len(world.writers)):
            for move, after in self._writer_moves(world, number):
                yield f"writer {number + 1} {move}", after.renumbered()
        for number, node in enumerate(world.nodes):
            for move, (after, changed) in self._node_moves(world, node):
                nodes = replaced(after.nodes, number, changed)
                yield f"node {number + 1} {move}", after._replace(nodes=nodes).renumbered()

    def is_quiet(self, world: World) -> bool:
        """Whether nothing will happen any more."""
        return all(one.steps_done == len(self.writer_steps) for one in world.writers) and all(
            one.next is Step.SLEEP and not one.is_notified and not one.on_the_way
            for one in world.nodes
        )

    def rest(self, node: Node) -> Step:
        """`BatchSource._rest` of a node that is not busy."""
        if not node.is_parked:
            return Step.PARK
        return Step.CHECK if node.settles_at else Step.SLEEP

    def listen(self, world: World, node: Node) -> Iterator[Changed]:
        yield world, node._replace(listens=True, next=Step.REGISTER)

    def register(self, world: World, node: Node) -> Iterator[Changed]:
        yield world, node._replace(is_registered=True, next=Step.READ)

    def read(self, world: World, node: Node) -> Iterator[Changed]:
        node = node._replace(unread=False)
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
            lost = Node(self.first_step, settles_at=node.settles_at, unread=node.unread)
            yield "loses its connections", (world.after_end_of(node.own_id), lost)

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
