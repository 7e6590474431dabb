"""All scenes by name, and what they are played with."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

from brain.database.migrations import migrate
from tests.faults.client_battery.program_scenes import PROGRAM_SCENES, play_program
from tests.faults.client_battery.programs import ListenProgram, Program, PythonProgram
from tests.faults.client_battery.surroundings import SceneFailed, Server, surroundings
from tests.postgres import new_database, server_for_tests
from tests.schemas import every_schema

PROGRAMS: dict[str, Callable[..., Program]] = {"python": PythonProgram, "listen": ListenProgram}
SCENES = [f"{program}/{scene}" for program in PROGRAMS for scene in PROGRAM_SCENES]


class Failure(Exception):
    """A scene failed with a seed."""


@dataclass(frozen=True)
class Players:
    server: Server
    folder: Path

    @classmethod
    @asynccontextmanager
    async def ready(cls, folder: Path) -> AsyncIterator[Players]:
        """Run a PostgreSQL, with a migrated database to copy."""
        with server_for_tests() as url:
            async with new_database(url) as template:
                await migrate(template, every_schema())
                yield cls(Server(url, urlsplit(template).path.removeprefix("/")), folder)


async def play(name: str, seed: int, players: Players, make: Any = None) -> None:
    """Play a scene with a seed; raise `Failure` if the client failed."""
    who, _, what = name.partition("/")
    folder = players.folder / f"{who}-{what}-{seed}"
    folder.mkdir(parents=True)
    scene = PROGRAM_SCENES[what]
    chance = Random(f"{seed} {name}")
    try:
        async with surroundings(players.server, folder, chance, **scene.settings) as around:
            await play_program(scene, around, make or PROGRAMS[who])
    except* SceneFailed as group:
        reasons = "\n".join(str(error) for error in leaves(group))
        raise Failure(f"{name}, seed {seed}: {reasons}\n(logs in {folder})") from None


def leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    return [
        leaf
        for error in group.exceptions
        for leaf in (leaves(error) if isinstance(error, BaseExceptionGroup) else [error])
    ]
