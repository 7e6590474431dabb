"""No order of steps loses a wake-up in the model, and each rule of the protocol is needed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.listener.interleavings import Search
from tests.listener.notification_model import Changed, Model, Node, Step, World, WriterStep

STEADY = Model(turns_busy=False, loses_connections=False)


class SleepsAtOnce(Model):
    """Parks and reads, but does not wait for writers that looked before."""

    def park(self, world: World, node: Node) -> Iterator[Changed]:
        yield world, node._replace(is_parked=True, next=Step.READ)


class TrustsTheXmax(Model):
    """Assumes that transactions that began earlier have ids below the xmax of a snapshot."""

    def begin(self, world: World, node: Node) -> Iterator[Changed]:
        yield world, node._replace(settles_at=world.snapshot_xmax, next=Step.READ)


class BeginsBeforeItParks(Model):
    def rest(self, node: Node) -> Step:
        following = super().rest(node)
        return Step.BEGIN if following is Step.PARK else following

    def end(self, world: World, node: Node) -> Iterator[Changed]:
        for after, changed in super().end(world, node):
            yield after, changed._replace(next=Step.PARK)

    def park(self, world: World, node: Node) -> Iterator[Changed]:
        yield world, node._replace(is_parked=True, next=Step.READ)


class DoesNotReadOnceMore(Model):
    """Sleeps as soon as writers that looked before have ended, without reading again."""

    def check(self, world: World, node: Node) -> Iterator[Changed]:
        for after, changed in super().check(world, node):
            is_settled = changed.next is Step.READ
            yield after, changed._replace(next=Step.SLEEP) if is_settled else changed


class ParksAfterItsLastRead(DoesNotReadOnceMore):
    def end(self, world: World, node: Node) -> Iterator[Changed]:
        for after, changed in super().end(world, node):
            yield after, changed._replace(next=Step.CHECK)

    def pause(self, world: World, node: Node) -> Iterator[Changed]:
        yield world, node._replace(is_notified=False, next=Step.CHECK)


class ReadsBeforeItListens(Model):
    first_step = Step.READ

    def rest(self, node: Node) -> Step:
        return super().rest(node) if node.listens else Step.LISTEN

    def register(self, world: World, node: Node) -> Iterator[Changed]:
        registered = node._replace(is_registered=True)
        yield world, registered._replace(next=self.rest(registered))


class ListensAfterItsLastRead(ReadsBeforeItListens):
    """Follows the protocol, but listens only when it is about to sleep."""

    def rest(self, node: Node) -> Step:
        following = Model.rest(self, node)
        return Step.LISTEN if following is Step.SLEEP and not node.listens else following


class ForgetsANotification(Model):
    """Clears the flag when it begins to wait and not when it wakes."""

    def rest(self, node: Node) -> Step:
        following = super().rest(node)
        return Step.PAUSE if following is Step.SLEEP else following

    def pause(self, world: World, node: Node) -> Iterator[Changed]:
        forgets = node._replace(is_notified=False)
        yield world, forgets._replace(next=Step.READ if node.settles_at else Step.SLEEP)


class LooksBeforeItHasAnId(Model):
    writer_steps = (WriterStep.LOOK, WriterStep.BEGIN, WriterStep.WRITE, WriterStep.END)


MUTANTS = [
    SleepsAtOnce,
    TrustsTheXmax,
    BeginsBeforeItParks,
    DoesNotReadOnceMore,
    ParksAfterItsLastRead,
    ListensAfterItsLastRead,
    ForgetsANotification,
    LooksBeforeItHasAnId,
]


@pytest.mark.parametrize(
    ("model", "writers", "nodes"),
    [
        (Model(), 2, 1),
        (Model(), 3, 1),
        (Model(), 1, 2),
        (STEADY, 2, 2),
        (Model(flushes=True), 2, 1),
        (Model(crashes=True), 2, 1),
    ],
    ids=["2 writers", "3 writers", "2 nodes", "2 writers and 2 steady nodes", "flush", "crash"],
)
def test_when_all_is_quiet_all_is_read_and_all_can_always_become_quiet(
    model: Model, writers: int, nodes: int
) -> None:
    search = Search(model, writers, nodes)
    print(f"{len(search.worlds)} worlds, {search.moves} moves")

    assert search.loss is None, "\n".join(search.way_to(search.loss))
    assert not search.stuck()


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_protocol_without_one_of_its_rules_loses_a_wake_up(mutant: type[Model]) -> None:
    search = Search(mutant(), writers=1, nodes=1)

    assert search.loss is not None
    print(mutant.__name__, *search.way_to(search.loss), sep="\n  ")


def test_a_first_read_before_listening_is_made_up_for_by_those_after_parking() -> None:
    search = Search(ReadsBeforeItListens(), writers=2, nodes=1)

    assert search.loss is None
