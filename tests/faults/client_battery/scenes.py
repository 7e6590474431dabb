"""All scenes by name, and what they are played with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from playwright.async_api import Browser

from tests.faults.client_battery.page_scenes import PAGE_SCENES, play_page
from tests.faults.client_battery.program_scenes import PROGRAM_SCENES, play_program
from tests.faults.client_battery.programs import ListenProgram, Program, PythonProgram
from tests.faults.client_battery.surroundings import SceneFailed, Server, surroundings

PROGRAMS: dict[str, Callable[..., Program]] = {"python": PythonProgram, "listen": ListenProgram}
PAGES = [f"react/{scene}" for scene in PAGE_SCENES]
SCENES = [*PAGES, *(f"{program}/{scene}" for program in PROGRAMS for scene in PROGRAM_SCENES)]


class Failure(Exception):
    """A scene failed with a seed."""


@dataclass(frozen=True)
class Screen:
    """In what pages are shown."""

    browser: Browser
    script: str
    """Of the page."""


@dataclass(frozen=True)
class Players:
    server: Server
    folder: Path
    """For the logs."""
    screen: Screen | None = None
    """None if no page is shown."""


async def play(name: str, seed: int, players: Players) -> None:
    """Play a scene with a seed; raise `Failure` if the client failed."""
    who, _, what = name.partition("/")
    folder = players.folder / f"{who}-{what}-{seed}"
    folder.mkdir(parents=True)
    chance = Random(f"{seed} {name}")
    scene = PAGE_SCENES[what] if who == "react" else PROGRAM_SCENES[what]
    try:
        async with surroundings(players.server, folder, chance, **scene.settings) as around:
            if who == "react":
                assert players.screen is not None
                screen = players.screen
                await play_page(PAGE_SCENES[what], around, screen.browser, screen.script)
            else:
                await play_program(PROGRAM_SCENES[what], around, PROGRAMS[who])
    except* SceneFailed as group:
        reasons = "\n".join(str(error) for error in leaves(group))
        raise Failure(f"{name}, seed {seed}: {reasons}\n(logs in {folder})") from None


def leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    return [
        leaf
        for error in group.exceptions
        for leaf in (leaves(error) if isinstance(error, BaseExceptionGroup) else [error])
    ]
