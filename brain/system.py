"""What a plug-in registers: its wire formats, routes, channels and tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import ClassVar

import asyncpg
from starlette.routing import BaseRoute

from brain.database.migrations import Schema, core_schema
from brain.errors import UsageError
from brain.message.channel_schema import ChannelSchema, ChannelSchemas
from brain.web.services import Services
from brain.web.websocket_endpoint import Profile

ENTRY_POINTS = "brain.systems"


class System:
    """
    A kind of clients that Brain serves; the core knows none of them.

    A Python package adds one by an entry point in the group `brain.systems` that names an instance
    or a subclass; `BRAIN_SYSTEMS` switches it on by its name.
    """

    name: ClassVar[str]
    summary: ClassVar[str] = ""
    """What it serves, in a line."""
    schemas: Sequence[Schema] = ()
    """The SQL of its tables and feeds, applied in this order when it is switched on."""
    channel_schemas: Sequence[ChannelSchema] = ()
    """How the rows of its channels are named and shown on `/ws`."""
    links: Mapping[str, str] = {}
    """Paths that `/` lists, by their names."""
    front_page: Path | None = None
    """The HTML page that browsers get at `/`."""
    first_examples: Mapping[str, str] = {}
    """SQL statements that insert what the examples change, where there are no samples."""
    examples: Mapping[str, str] = {}
    """SQL statements to try, by what they do."""

    def profiles(self, schemas: ChannelSchemas) -> Sequence[Profile]:
        """Return how `/ws` speaks with its clients."""
        return ()

    def routes(self, services: Services) -> Sequence[BaseRoute]:
        """Return its own addresses."""
        return ()

    async def insert_samples(self, connection: asyncpg.Connection) -> str | None:
        """
        Insert a few rows to look at, unless there are any.

        Into tables that Brain created and into no others; returns why not, in a line.
        """
        return None


def installed_systems() -> dict[str, System]:
    """Return every installed system by its name, in the order of names."""
    found = {}
    for entry_point in sorted(entry_points(group=ENTRY_POINTS), key=lambda one: one.name):
        system = entry_point.load()
        found[entry_point.name] = system() if isinstance(system, type) else system
    return found


def select_systems(names: Iterable[str], installed: Mapping[str, System]) -> list[System]:
    """Return the systems with these names, or all; raises `UsageError` for an unknown name."""
    wanted = list(dict.fromkeys(names))
    if wanted == ["all"]:
        return list(installed.values())
    unknown = [name for name in wanted if name not in installed]
    if unknown:
        raise UsageError(
            f"there is no system {', '.join(unknown)}: BRAIN_SYSTEMS knows all, or some of "
            f"{', '.join(installed)}"
        )
    return [installed[name] for name in wanted]


def schemas_of(systems: Iterable[System]) -> list[Schema]:
    """Return the schemas of the core and of `systems`, each once, in the order to apply them."""
    return list(dict.fromkeys([core_schema(), *(s for system in systems for s in system.schemas)]))
