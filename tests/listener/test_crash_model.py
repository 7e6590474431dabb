"""In the model no crash loses, doubles or takes back what a client was sent."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import pytest

from tests.listener.crash_model import Model, Node, Record, Step, World, fault

EVENTS = 2


class NeverWaits(Model):
    """Commits every tick without waiting for the disk."""

    def is_durable(self, world: World, node: Node) -> bool:
        return True


class ReadsThePlaceFirst(Model):
    """Reads the position in the WAL before it takes the snapshot."""

    def look(self, world: World, node: Node) -> Iterator[World]:
        if node.place == 0:
            changed = node._replace(place=len(world.wal) + 1)
            yield world._replace(node=changed)
        else:
            yield world._replace(node=node._replace(seen=world.seen(), next=Step.TICK))

    def is_durable(self, world: World, node: Node) -> bool:
        return node.place - 1 <= world.flushed

    def sent(self, node: Node, cut: Record, after: Record | None, next: Step) -> Node:
        return super().sent(node, cut, after, next)._replace(place=0)


class ForgetsWhatItDelivered(Model):
    def read_again(self, node: Node, cut: Record) -> Node:
        return self.sent(node, cut, node.safe, next=Step.LOOK)


class TakesItsTickForSafe(Model):
    """Counts a tick as safe from crashes as soon as it is committed."""

    def flush(self, world: World, node: Node) -> Iterator[World]:
        yield world._replace(node=node._replace(safe=node.tick, next=Step.LOOK))


class StartsOver(Model):
    """Starts over if the log lacks its tick."""

    def resume(self, world: World, node: Node) -> Iterator[World]:
        if world.holds(node.tick):
            yield from super().resume(world, node)
        else:
            yield world._replace(node=node._replace(resets=node.resets + 1, next=Step.LOOK))


MUTANTS = {
    NeverWaits: "an event was delivered that a crash took back",
    ReadsThePlaceFirst: "an event was delivered that a crash took back",
    ForgetsWhatItDelivered: "an event was delivered twice",
    TakesItsTickForSafe: "a live client was sent a reset",
    StartsOver: "a live client was sent a reset",
}


def search(model: Model) -> tuple[int, list[str]]:
    """Visit all worlds; return their number, and a shortest way to a fault, which is its end."""
    start = World(unwritten=tuple(range(1, EVENTS + 1)))
    came_from: dict[World, tuple[World, str] | None] = {start: None}
    ahead = deque([start])
    while ahead:
        world = ahead.popleft()
        if what := fault(world):
            way = [what]
            while (step := came_from[world]) is not None:
                world, move = step
                way.append(move)
            return len(came_from), way[::-1]
        for move, after in model.moves(world):
            if after not in came_from:
                came_from[after] = world, move
                ahead.append(after)
    assert any(world.is_quiet() for world in came_from)
    return len(came_from), []


@pytest.mark.parametrize("is_async", [False, True], ids=["writers wait", "writers do not wait"])
def test_a_live_client_is_sent_every_event_once_whatever_crashes(is_async: bool) -> None:
    worlds, way = search(Model(is_async=is_async))
    print(f"{worlds} worlds")

    assert not way, "\n".join(way)


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_protocol_without_one_of_its_rules_fails_a_client(mutant: type[Model]) -> None:
    faults = [search(mutant(is_async=is_async))[1] for is_async in (False, True)]
    found = [way for way in faults if way]
    print(mutant.__name__, *found[0], sep="\n  ")

    assert {way[-1] for way in found} == {MUTANTS[mutant]}
