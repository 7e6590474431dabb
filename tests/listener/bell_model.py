"""
A model of writers and of nodes that sleep: what may happen next, in any order.

A node's steps are the calls that `Listener._follow` makes, one name for each:

    LISTEN, REGISTER    Bell.listen: the server sends; asyncpg drops what comes until it registers
    READ                Listener._read: the snapshot that Log.tick stores, then Log.after
    PARK, UNPARK        Bell.park, Bell.unpark: the shared lock by which writers know of sleepers
    BEGIN, END          Log.begun_transaction: a transaction of its own, not over at once
    CHECK               Log.oldest_transaction: are all over that began before it?
    PAUSE               Bell.wait for a moment, as they are not
    SLEEP               Bell.wait until it rings; the poll that backs it up is left out

Which comes next is decided in `Model.rest`, as in `Listener._rest`. A writer takes a transaction
id, writes a row (the first to need the id), looks for sleepers (the WHEN of the statement trigger)
and ends, by a commit or not. At a commit its row becomes visible, its id is over, and its bell is
on the way to whoever listens; it arrives at any time after. A node may turn busy at every read and
may lose its connections at any time.

Left out, since they only delay a node or wake it: the ids that ticks take, and two writers who try
the lock at the same time, of whom one rings for nothing.
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
    UNPARK = "lets go of its lock"
    BEGIN = "begins a transaction of its own"
    END = "ends it"
    CHECK = "checks whether all before that are over"
    PAUSE = "waits a moment"
    SLEEP = "sleeps until it rings"


class WriterStep(StrEnum):
    BEGIN = "takes a transaction id"
    WRITE = "writes its row"
    LOOK = "looks for sleepers"
    END = "ends"


class Writer(NamedTuple):
    steps_done: int = 0
    id: int = 0
    """Its transaction, while that is open; else 0."""
    rings: bool = False


class Node(NamedTuple):
    next: Step = Step.LISTEN
    is_parked: bool = False
    settles_at: int = 0
    """`Listener._settles_at`; 0 for None."""
    own_id: int = 0
    """Its own transaction, while that is open; else 0."""
    listens: bool = False
    is_registered: bool = False
    on_the_way: bool = False
    """Whether a notification is between the server and the callback."""
    rang: bool = False
    """The flag of `Bell`."""
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
        """Below it all are over; what has begun above the xmax is unknown to a snapshot."""
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
        """Return the same for whoever cannot tell one writer from another, nor one node."""
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
        has_strangers: bool = False,
    ) -> None:
        self._turns_busy = turns_busy
        self._loses_connections = loses_connections
        self._has_strangers = has_strangers
        """Whether transactions of others may keep a node from seeing that all are over."""

    def start(self, writers: int, nodes: int) -> World:
        return World((Writer(),) * writers, (Node(self.first_step),) * nodes)

    def moves(self, world: World) -> Iterator[tuple[str, World]]:
        """Yield what may happen next, in words, and what the world is like then."""
        for number in range(len(world.writers)):
            for told, after in self._writer_moves(world, number):
                yield f"writer {number + 1} {told}", after.renumbered()
        for number, node in enumerate(world.nodes):
            for told, (after, changed) in self._node_moves(world, node):
                nodes = replaced(after.nodes, number, changed)
                yield f"node {number + 1} {told}", after._replace(nodes=nodes).renumbered()

    def is_quiet(self, world: World) -> bool:
        """Whether nothing will happen any more."""
        return all(one.steps_done == len(self.writer_steps) for one in world.writers) and all(
            one.next is Step.SLEEP and not one.rang and not one.on_the_way for one in world.nodes
        )

    def rest(self, node: Node) -> Step:
        """`Listener._rest` of a node that is not busy."""
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
        if self._has_strangers or world.snapshot_xmin < node.settles_at:
            yield world, node._replace(next=Step.PAUSE)

    def pause(self, world: World, node: Node) -> Iterator[Changed]:
        yield world, node._replace(rang=False, next=Step.READ)

    def sleep(self, world: World, node: Node) -> Iterator[Changed]:
        if node.rang:
            yield world, node._replace(rang=False, next=Step.READ)

    def _node_moves(self, world: World, node: Node) -> Iterator[tuple[str, Changed]]:
        for changed in getattr(self, node.next.name.lower())(world, node):
            yield node.next, changed
        if node.on_the_way:
            rang = node.rang or node.is_registered
            yield "is rung for", (world, node._replace(on_the_way=False, rang=rang))
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
            yield "commits", ended._replace(nodes=tuple(told(ended.nodes, writer.rings)))
            return
        if step is WriterStep.BEGIN:
            writer = writer._replace(id=world.next_id)
            world = world._replace(next_id=world.next_id + 1)
        elif step is WriterStep.LOOK:
            writer = writer._replace(rings=any(node.is_parked for node in world.nodes))
        yield step, self._after(world, number, writer)

    def _after(self, world: World, number: int, writer: Writer) -> World:
        return world._replace(writers=replaced(world.writers, number, writer))


def told(nodes: Iterable[Node], rings: bool) -> Iterator[Node]:
    """Yield the nodes after the commit of a writer."""
    for node in nodes:
        on_the_way = node.on_the_way or (rings and node.listens)
        yield node._replace(unread=True, on_the_way=on_the_way)
