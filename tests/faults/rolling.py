"""A scenario of an upgrade: workers and nodes are replaced one after another under load."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import orjson

from tests.faults.crowd import allow_files
from tests.faults.figures import Figure
from tests.faults.load import CHANNEL, loaded
from tests.faults.returners import PATIENCE_SECONDS
from tests.faults.returners import Report as Returned
from tests.faults.scene import Report, ScenarioFailed, Scene, Stage, set_up
from tests.faults.servers import Node

FOLLOWING = f"/ws?channel={CHANNEL}"
FOLLOWING_WITH_CURSOR = f"{FOLLOWING}&cursor="
WORKERS = 2
LONGEST_WAIT_SECONDS = 2.0
"""How long a client may take to be connected again, while nodes are replaced."""
GOODBYES = 10_000
"""For how many clients the drain time of the settings is."""
SHARE_AT_ONCE = 1.5
"""How many times as many clients may come back in a second as are closed in one: a busy machine
holds them up, and then they come together."""


async def rolling(
    stage: Stage,
    *,
    rounds: int,
    clients: int,
    with_cursors: int,
    without_cursors: int,
    rate: float,
    notes_rate: float,
    drain_seconds: float,
    longest_wait_seconds: float,
) -> Report:
    """
    Replace all workers of two Brains, and then each Brain, `rounds` times.

    A few clients follow all changes, of which the rate is `rate`, and are judged by the ledger.
    Many follow the messages of one channel, with and without cursors.
    """
    settings = {"BRAIN_WORKERS": str(WORKERS), "BRAIN_DRAIN_SECONDS": str(drain_seconds)}
    allow_files(clients + with_cursors + without_cursors)
    async with set_up(stage) as scene:
        nodes = [await scene.serve(**settings) for _ in range(2)]
        ports = [node.port for node in nodes]
        async with (
            loaded(scene.database) as load,
            returning(ports, with_cursors, FOLLOWING_WITH_CURSOR) as resuming,
            returning(ports, without_cursors, FOLLOWING) as forgetful,
        ):
            async with (
                scene.followed(clients),
                scene.writing(rate),
                load.flowing(notes_rate),
            ):
                for _ in range(rounds):
                    await replace_everything(scene, nodes, (resuming, forgetful))
            await load.publish()
            figures = figures_of(
                await resuming.report(load.last),
                await forgetful.report(load.last),
                GOODBYES / drain_seconds,
                longest_wait_seconds,
            )
        return (await scene.report())._replace(figures=figures)


async def replace_everything(scene: Scene, nodes: list[Node], crowds: Sequence[Returning]) -> None:
    """
    Replace the workers of each node, and then each node.

    One that has stopped gets no clients until it is ready again: that is what a load balancer asks
    `/readyz` for. Until it has stopped it may refuse them.
    """
    for node in nodes:
        await node.replace_workers()
        scene.faults += WORKERS
        await scene.every_client_receives()
    for node in nodes:
        status = await node.end(signal.SIGTERM)
        if status != 0:
            raise ScenarioFailed(f"Brain exited with {status} after SIGTERM")
        for crowd in crowds:
            await crowd.use([other.port for other in nodes if other is not node])
        await node.start()
        for crowd in crowds:
            await crowd.use([other.port for other in nodes])
        scene.faults += 1
        await scene.every_client_receives()


def figures_of(
    resuming: Returned, forgetful: Returned, goodbyes_per_second: float, wait_seconds: float
) -> tuple[Figure, ...]:
    """Judge the many: those with cursors by what they got, and all by how they came back."""
    most = SHARE_AT_ONCE * goodbyes_per_second
    otherwise = Counter(resuming.codes) + Counter(forgetful.codes)
    del otherwise["1012"]
    named = f" ({', '.join(sorted(otherwise))})" if otherwise else ""
    return (
        Figure("with cursors: lost", resuming.lost, most=0),
        Figure("doubled", resuming.doubled, most=0),
        Figure("reset", resuming.resets, most=0),
        Figure("came back", resuming.returns, least=1),
        Figure("longest wait", resuming.longest_wait, "s", most=wait_seconds),
        Figure("most in a second", resuming.most_in_a_second, most=most),
        Figure("without: came back", forgetful.returns, least=1),
        Figure("longest wait", forgetful.longest_wait, "s", most=wait_seconds),
        Figure("most in a second", forgetful.most_in_a_second, most=most),
        Figure(f"closed otherwise than with 1012{named}", otherwise.total(), most=0),
    )


class Returning:
    """The process of clients that come back by themselves."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def report(self, number: int) -> Returned:
        """Wait until all have received the message with this number; return the totals."""
        return Returned(**await self._ask(f"report {number}"))

    async def use(self, ports: Sequence[int]) -> None:
        """Let clients come back to these ports."""
        await self._ask(f"use {' '.join(map(str, ports))}")

    async def answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        async with asyncio.timeout(2 * PATIENCE_SECONDS):
            line = await self._process.stdout.readline()
        if not line:
            raise ScenarioFailed("the returners' process has ended; its error is printed above")
        answer: dict[str, Any] = orjson.loads(line)
        return answer

    async def _ask(self, command: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n".encode())
        return await self.answer()


@asynccontextmanager
async def returning(ports: list[int], clients: int, path: str) -> AsyncIterator[Returning]:
    """Run clients in a process of their own, and yield once all are connected."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.faults.returners", str(clients), *map(str, ports)),
        *("--path", path),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        found = Returning(process)
        await found.answer()
        yield found
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
