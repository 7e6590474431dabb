"""Scenes for programs that follow the orders, and the verdict on what they were sent."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random

from brain.client import connection
from tests.faults.client_battery.gate import Upgrades
from tests.faults.client_battery.orders import IS_OPEN, History, only_open
from tests.faults.client_battery.programs import WATCHDOG_SECONDS, Program, Request
from tests.faults.client_battery.receipts import FIRST_MARK, faults
from tests.faults.client_battery.surroundings import (
    WITH_TOKENS,
    SceneFailed,
    Surroundings,
    becomes,
)

Play = Callable[["Course"], Awaitable[None]]


@dataclass
class Course:
    """A scene in progress."""

    around: Surroundings
    request: Request
    program: Program
    marks: int = 0
    notes: dict[str, int] = field(default_factory=dict)

    async def mark(self) -> int:
        """Insert a row by whose arrival it is known that everything before it has come."""
        id = FIRST_MARK - self.marks
        self.marks += 1
        await self.around.execute(f"INSERT INTO orders VALUES ({id}, '{IS_OPEN}', 0)")
        return id

    async def begins(self) -> int | None:
        """Start the program; return the serial after which it has to be sent everything, if any."""
        self.request.renew_token(2)
        await self.program.start()
        receipts = self.program.receipts

        async def has_begun() -> bool:
            self._check()
            # However long it takes to start.
            self.request.renew_token(2)
            if not self.request.has_snapshot and not receipts.marks:
                await self.mark()
            return receipts.is_live if self.request.has_snapshot else bool(receipts.marks)

        await becomes(has_begun, lambda: "the program is sent nothing")
        if self.request.has_snapshot:
            return None
        first = max(receipts.marks)
        return (await self.around.history())[first][0].serial - 1

    async def ends(self) -> None:
        """Return once the program has been sent two marks after everything."""
        receipts = self.program.receipts
        for _ in range(2):
            id = await self.mark()

            async def has_come(id: int = id) -> bool:
                self._check()
                return id in receipts.marks or self._is_in_snapshot(id)

            await becomes(has_come, lambda: f"the program is not sent what is new: {self.state()}")

    def _is_in_snapshot(self, id: int) -> bool:
        return id in self.program.receipts.segments[-1].receipts

    def state(self) -> str:
        receipts, gate = self.program.receipts, self.around.gate
        return (
            f"{receipts.changes} changes, {receipts.resets} resets, {receipts.repeated} repeated,"
            f" {gate.websockets} WebSockets, {gate.streams} streams, {gate.blocked} blocked"
        )

    def _check(self) -> None:
        problem = self.program.problem()
        if problem is not None:
            raise SceneFailed(problem)


async def killed(course: Course) -> None:
    """Brain is killed and started again while rows change."""
    around = course.around
    async with around.writing():
        await around.wait(0.2, 0.6)
        await around.kill()
        await around.wait(0, 0.3)
        await around.node.start()
        await around.wait(0.2, 0.8)


async def silent(course: Course) -> None:
    """The link carries nothing any more, and nobody closes it."""
    around = course.around
    async with around.writing():
        await around.wait(0.2, 0.8)
        before = around.gate.websockets
        around.gate.fall_silent()
        # Nobody tells the client: it has to find out.
        await becomes(
            lambda: opened_since(around, before), lambda: "the program holds on to a dead link"
        )
        await around.wait(0.2, 0.5)


async def opened_since(around: Surroundings, before: int) -> bool:
    return around.gate.websockets > before


async def expiring(course: Course) -> None:
    """Tokens expire while rows change."""
    around, request = course.around, course.request
    async with around.writing():
        for _ in range(4):
            await around.wait(0.5, 1.1)
            if around.chance.random() < 0.3:
                around.gate.cut()
            # Some come late: the one before has expired by then.
            request.renew_token(around.chance.choice([1, 1.5, 2]))
    request.renew_token(60)


async def retention_passed(course: Course) -> None:
    """What the program has missed is in no log any more."""
    around = course.around
    resets = course.program.receipts.resets
    async with around.writing():
        await around.wait(0.1, 0.5)
        around.gate.shut()
        await around.wait(0.3, 0.6)
        # The ring goes with the process.
        await around.kill()
        await around.trim()
        await around.node.start()
        around.gate.open()
        await around.wait(0.5, 1)
    await course.ends()
    if course.program.receipts.resets == resets:
        raise SceneFailed("there was no reset")


async def blocked(course: Course) -> None:
    """A proxy lets no WebSocket through."""
    around = course.around
    async with around.writing():
        await around.wait(0.3, 0.8)
        around.gate.cut()
        await around.wait(0.3, 0.8)
    await course.ends()
    expect_streams(around)


async def blocked_later(course: Course) -> None:
    """A proxy begins to let no WebSocket through, or lets them through again."""
    around = course.around
    async with around.writing():
        await around.wait(0.2, 0.5)
        around.gate.upgrades = around.chance.choice([Upgrades.FORBID, Upgrades.CUT])
        around.gate.cut()
        await becomes(lambda: has_streams(around), lambda: "the program takes no event stream")
        await around.wait(0.2, 0.5)
        around.gate.cut()
        if around.chance.random() < 0.5:
            around.gate.upgrades = Upgrades.PASS
        await around.wait(0.2, 0.5)


async def has_streams(around: Surroundings) -> bool:
    return around.gate.streams > 0


def expect_streams(around: Surroundings) -> None:
    if not around.gate.streams or not around.gate.blocked:
        raise SceneFailed("the program took no event stream, or never tried a WebSocket")


async def torn(course: Course) -> None:
    """The connection is cut over and over, within transactions and frames."""
    around = course.around
    async with around.writing(pause_seconds=0.02):
        for _ in range(12):
            around.gate.cut_after(around.chance.randrange(1, 20_000))
            await around.wait(0, 0.25)
    around.gate.cut()


async def slow(course: Course) -> None:
    """The program reads more slowly than rows change, and is closed as a slow consumer."""
    around = course.around
    course.request.slowness_seconds = 0.02
    async with around.writing(pause_seconds=0.01):
        await around.wait(1, 1.5)
    course.request.slowness_seconds = 0


async def restarted(course: Course) -> None:
    """The program is killed, and goes on with its cursor file."""
    around = course.around
    course.request.slowness_seconds = 0.01
    async with around.writing():
        for _ in range(3):
            await around.wait(0.1, 0.8)
            await course.program.kill()
            course.program.receipts.restart()
            await around.wait(0, 0.3)
            await course.program.start()
        await around.wait(0.3, 0.6)


@dataclass(frozen=True)
class ProgramScene:
    play: Play
    settings: Mapping[str, str] = field(default_factory=dict)
    has_snapshot: bool | None = None
    """None if that is left to chance."""
    keeps_cursor: bool = False
    is_blocked: bool = False


PROGRAM_SCENES: Mapping[str, ProgramScene] = {
    "killed": ProgramScene(killed),
    "silent": ProgramScene(silent),
    "expiring": ProgramScene(expiring, WITH_TOKENS),
    "retention-passed": ProgramScene(retention_passed, has_snapshot=True),
    "blocked": ProgramScene(blocked, is_blocked=True),
    "blocked-later": ProgramScene(blocked_later),
    "torn": ProgramScene(torn),
    "slow": ProgramScene(slow, {"BRAIN_RING_SECONDS": "0.2"}),
    "restarted": ProgramScene(restarted, keeps_cursor=True),
}


async def play_program(
    scene: ProgramScene, around: Surroundings, make: Callable[..., Program]
) -> None:
    """Play a scene with a program; raise `SceneFailed` if it was not sent each change once."""
    chance = around.chance
    request = Request(
        url=around.gate.url,
        folder=around.folder,
        is_of_open_orders=chance.random() < 0.5,
        has_snapshot=chance.random() < 0.5 if scene.has_snapshot is None else scene.has_snapshot,
        keeps_cursor=scene.keeps_cursor,
        has_token="BRAIN_JWT_SECRET" in scene.settings,
    )
    if scene.is_blocked:
        around.gate.upgrades = chance.choice([Upgrades.FORBID, Upgrades.CUT])
    course = Course(around, request, make(request, Random(chance.random())))
    with quick_watchdog():
        try:
            since = await course.begins()
            await scene.play(course)
            await course.ends()
            judge(course, await around.history(), since)
        finally:
            await course.program.kill()


@contextmanager
def quick_watchdog() -> Iterator[None]:
    """Let the clients of this process give a silent connection up soon."""
    before = connection.WATCHDOG_SECONDS
    connection.WATCHDOG_SECONDS = WATCHDOG_SECONDS
    try:
        yield
    finally:
        connection.WATCHDOG_SECONDS = before


def judge(course: Course, history: History, since: int | None) -> None:
    shown = only_open(history) if course.request.is_of_open_orders else history
    found = faults(course.program.receipts, shown, since)
    if found:
        about = f"{len(found)} orders are wrong: {course.request}, {course.state()}\n"
        raise SceneFailed(about + "\n".join(found[:5]))
