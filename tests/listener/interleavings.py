"""Interleavings: the orders in which the steps of several processes can follow each other."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator

from tests.listener.notification_model import Model, World


class Search:
    """A breadth-first search of all worlds that a model can reach, up to the first loss."""

    def __init__(self, model: Model, writers: int, nodes: int) -> None:
        self.model = model
        self.loss: World | None = None
        """A quiet world in which a committed row is unread, if one was found."""
        self.moves = 0
        self._came_from: dict[World, tuple[World, str] | None] = {}
        self._before: dict[World, list[World]] = {}
        self._explore(model.start(writers, nodes))

    @property
    def worlds(self) -> Collection[World]:
        return self._came_from.keys()

    def way_to(self, world: World) -> list[str]:
        """Return a shortest sequence of moves that leads to `world`."""
        way = []
        while (step := self._came_from[world]) is not None:
            world, move = step
            way.append(move)
        return way[::-1]

    def stuck(self) -> set[World]:
        """Return the worlds from which no quiet world can be reached."""
        reaching = [world for world in self._came_from if self.model.is_quiet(world)]
        seen = set(reaching)
        while reaching:
            for world in self._before[reaching.pop()]:
                if world not in seen:
                    seen.add(world)
                    reaching.append(world)
        return self._came_from.keys() - seen

    def _explore(self, start: World) -> None:
        self._came_from[start], self._before[start] = None, []
        ahead, known = deque([start]), {start: start}
        while ahead and self.loss is None:
            world = ahead.popleft()
            if self.model.is_quiet(world) and any(node.unread for node in world.nodes):
                self.loss = world
            for move, after in self.model.moves(world):
                self.moves += 1
                same = known.setdefault(after.sorted(), after)
                if same is after:
                    self._came_from[after], self._before[after] = (world, move), []
                    ahead.append(after)
                self._before[same].append(world)


def replayed(model: Model, writers: int, moves: Iterable[str]) -> set[World]:
    """Return the worlds to which these moves of one node and its writers lead."""
    worlds = {model.start(writers, 1)}
    for move in moves:
        worlds = {after for world in worlds for name, after in model.moves(world) if name == move}
    return worlds


def merges(*sequences: str) -> Iterator[str]:
    """Yield every interleaving of `sequences`; each of them keeps its order."""
    if not any(sequences):
        yield ""
    for number, sequence in enumerate(sequences):
        if sequence:
            left = (*sequences[:number], sequence[1:], *sequences[number + 1 :])
            yield from (sequence[0] + rest for rest in merges(*left))
