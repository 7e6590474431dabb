"""Scenes for a React table in a browser, and the verdict on what it has shown."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

from playwright.async_api import Browser, BrowserContext

from tests.faults.client_battery.gate import Upgrades
from tests.faults.client_battery.orders import IS_OPEN, Table, only_open
from tests.faults.client_battery.orders_page import OrdersPage, new_page, page_server
from tests.faults.client_battery.program_scenes import expect_streams, has_streams
from tests.faults.client_battery.receipts import FIRST_MARK
from tests.faults.client_battery.renders import faults, table_of
from tests.faults.client_battery.surroundings import (
    WITH_TOKENS,
    SceneFailed,
    Surroundings,
    becomes,
    difference,
    token,
)

Play = Callable[["Showing"], Awaitable[None]]


@dataclass
class Showing:
    """A scene in progress."""

    around: Surroundings
    context: BrowserContext
    origin: str
    script: str
    options: Mapping[str, Any]
    has_token: bool
    pages: list[OrdersPage] = field(default_factory=list)
    """Those that are open."""
    all_pages: list[OrdersPage] = field(default_factory=list)

    async def open_page(self) -> OrdersPage:
        """Open another page, and return it once it shows rows."""
        page = await new_page(
            self.context,
            self.script,
            self.around.gate.url,
            dict(self.options),
            has_token=self.has_token,
        )
        self.pages.append(page)
        await page.open(self.origin)

        async def is_ready() -> bool:
            return table_of(await page.shown()) is not None

        await becomes(is_ready, lambda: f"the page shows no rows: {self.state()}")
        return page

    async def close_page(self, page: OrdersPage) -> None:
        """Judge what a page has shown, and close it."""
        self.pages.remove(page)
        await self.judge(page)
        await page.page.close()

    async def is_equal(self, why: str) -> None:
        """Return once each page shows the rows of the table."""
        expected = await self.around.orders(only_open=True)
        for page in self.pages:
            await self._is_equal(page, expected, why)

    async def _is_equal(self, page: OrdersPage, expected: Table, why: str) -> None:
        seen: Table = {}

        async def is_equal() -> bool:
            nonlocal seen
            seen = table_of(await page.shown()) or {}
            return seen == expected

        await becomes(
            is_equal,
            lambda: f"{why} the page differs: {self.state()} {difference(seen, expected)}",
        )

    async def ends(self) -> None:
        """Judge all pages, once they show the rows of the table, and then those that follow."""
        await self.is_equal("in the end")
        await self.around.write(5)
        await self.is_equal("after that")
        for page in self.pages:
            await self.judge(page)

    async def judge(self, page: OrdersPage) -> None:
        renders = await page.renders()
        # Read later: rows may change meanwhile, and the page would show what no history has.
        history = only_open(await self.around.history())
        found = faults(renders, history) + page.errors
        if found:
            raise SceneFailed(f"{self.state()}\n" + "\n".join(found[:5]))

    def state(self) -> str:
        gate = self.around.gate
        errors = [page.errors for page in self.pages]
        return (
            f"{gate.websockets} WebSockets, {gate.streams} streams, {gate.blocked} blocked,"
            f" {errors=}"
        )


async def killed(showing: Showing) -> None:
    """Brain is killed and started again while rows change."""
    around = showing.around
    async with around.writing():
        await around.wait(0.2, 0.6)
        await around.kill()
        await around.wait(0, 0.3)
        await around.node.start()
        await around.wait(0.2, 0.8)
    await showing.is_equal("with Brain again")
    loaded = await showing.pages[0].count("snapshot-end")
    if loaded != 1:
        raise SceneFailed(f"all rows were loaded {loaded} times: it did not go on where it was")


async def offline(showing: Showing) -> None:
    """The device goes offline, and comes back."""
    around = showing.around
    async with around.writing():
        for end in (around.gate.cut, around.gate.fall_silent):
            await around.wait(0.2, 0.6)
            await showing.context.set_offline(True)
            end()
            await around.wait(0.1, 0.8)
            await showing.context.set_offline(False)
        await around.wait(0.1, 0.3)


async def asleep(showing: Showing) -> None:
    """The device sleeps, and its connection is dead when it wakes up, which nobody says."""
    around, clock = showing.around, showing.context.clock
    async with around.writing():
        await around.wait(0.2, 0.6)
        around.gate.fall_silent()
        await around.wait(0.1, 0.6)
        await clock.fast_forward(around.chance.choice(["01:00", "10:00", "08:00:00"]))
        await around.wait(0, 0.2)
        # It is asked whether it is alive, and does not answer.
        await clock.fast_forward("00:10")
        await around.wait(0.2, 0.5)


async def expiring(showing: Showing) -> None:
    """Tokens expire while rows change, and the next ones come late, or not at once."""
    around = showing.around
    async with around.writing():
        for _ in range(4):
            await around.wait(0.5, 1.1)
            if around.chance.random() < 0.3:
                around.gate.cut()


async def mounted_again(showing: Showing) -> None:
    """The table is taken out of the page and put back, at once or later."""
    around, (page,) = showing.around, showing.pages
    if around.gate.websockets != 1:
        raise SceneFailed(f"StrictMode's two mounts opened {around.gate.websockets} WebSockets")
    async with around.writing():
        for _ in range(around.chance.randrange(2, 5)):
            await around.wait(0.1, 0.4)
            await page.unmount()
            # A subscription stays for a second.
            await around.wait(0, around.chance.choice([0, 0.3, 1.5]))
            await page.mount()


async def retention_passed(showing: Showing) -> None:
    """What the page has missed is in no log any more."""
    around, (page,) = showing.around, showing.pages
    await around.execute(f"INSERT INTO orders VALUES ({FIRST_MARK}, '{IS_OPEN}', 0)")
    await showing.is_equal("with one more order")
    async with around.writing():
        await around.wait(0.1, 0.5)
        around.gate.shut()
        # That it is gone is what the page never learns.
        await around.execute(f"DELETE FROM orders WHERE id = {FIRST_MARK}")
        await around.wait(0.3, 0.6)
        # The ring goes with the process.
        await around.kill()
        await around.trim()
        await around.node.start()
        around.gate.open()
        await around.wait(0.5, 1)
    await showing.is_equal("after what was missed was forgotten")
    if not await page.count("reset"):
        raise SceneFailed("there was no reset")


async def blocked(showing: Showing) -> None:
    """A proxy lets no WebSocket through."""
    around = showing.around
    async with around.writing():
        await around.wait(0.3, 0.8)
        around.gate.cut()
        await around.wait(0.3, 0.8)
    await showing.is_equal("without WebSockets")
    expect_streams(around)


async def blocked_later(showing: Showing) -> None:
    """A proxy begins to let no WebSocket through, or lets them through again."""
    around = showing.around
    async with around.writing():
        await around.wait(0.2, 0.5)
        around.gate.upgrades = around.chance.choice([Upgrades.FORBID, Upgrades.CUT])
        around.gate.cut()
        await becomes(lambda: has_streams(around), lambda: "the page takes no event stream")
        await around.wait(0.2, 0.5)
        around.gate.cut()
        if around.chance.random() < 0.5:
            around.gate.upgrades = Upgrades.PASS
        await around.wait(0.2, 0.5)


async def leading_tab_closed(showing: Showing) -> None:
    """Of several tabs with one connection the one that has it is closed."""
    around = showing.around
    async with around.writing():
        for _ in range(around.chance.choice([1, 1, 2])):
            await showing.open_page()
        await around.wait(0.2, 0.5)
        if around.gate.open_websockets() != 1:
            raise SceneFailed(
                f"{len(showing.pages)} tabs have {around.gate.open_websockets()} WebSockets"
            )
        await showing.close_page(showing.pages[0])
        await around.wait(0.2, 0.8)


async def torn(showing: Showing) -> None:
    """The connection is cut over and over, within transactions and frames."""
    around = showing.around
    async with around.writing(pause_seconds=0.02):
        for _ in range(10):
            around.gate.cut_after(around.chance.randrange(1, 20_000))
            await around.wait(0, 0.3)
    around.gate.cut()


@dataclass(frozen=True)
class PageScene:
    play: Play
    settings: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    is_blocked: bool = False
    has_clock: bool = False
    """True if the page's clock is the battery's."""


PAGE_SCENES: Mapping[str, PageScene] = {
    "killed": PageScene(killed),
    "offline": PageScene(offline),
    "asleep": PageScene(asleep, has_clock=True),
    "expiring": PageScene(expiring, WITH_TOKENS),
    "mounted-again": PageScene(mounted_again),
    "retention-passed": PageScene(retention_passed),
    "blocked": PageScene(blocked, is_blocked=True),
    "blocked-later": PageScene(blocked_later),
    "leading-tab-closed": PageScene(leading_tab_closed, options={"tabs": True}),
    "torn": PageScene(torn),
}


async def play_page(scene: PageScene, around: Surroundings, browser: Browser, script: str) -> None:
    """Play a scene with a page; raise `SceneFailed` if it has shown anything wrong."""
    if scene.is_blocked:
        around.gate.upgrades = around.chance.choice([Upgrades.FORBID, Upgrades.CUT])
    has_token = "BRAIN_JWT_SECRET" in scene.settings
    context = await browser.new_context()
    try:
        if scene.has_clock:
            await context.clock.install()
        chance = Random(around.chance.random())
        await context.expose_function("token", lambda: next_token(chance))
        with page_server() as origin:
            showing = Showing(around, context, origin, script, scene.options, has_token)
            await showing.open_page()
            await scene.play(showing)
            await showing.ends()
    finally:
        await context.close()


def next_token(chance: Random) -> str:
    """Return a token for a second or two, or one that has expired; or raise."""
    what = chance.random()
    if what < 0.1:
        raise ConnectionError("there is no token at the moment")
    return token(-1 if what < 0.2 else chance.choice([1, 1.5, 2]))
