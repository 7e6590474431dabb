"""What a plug-in registers: its wire formats, routes, channels and tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import asyncpg
from starlette.routing import BaseRoute

from brain.database.schema_files import Schema, core_schema
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

    name: str
    """That of its entry point."""
    summary: str = ""
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


class BrokenSystem(System):
    """An entry point that yields no system; it can be listed, and not switched on."""

    def __init__(self, name: str, problem: str) -> None:
        self.name = name
        self.summary = f"cannot be loaded: {problem}"


def installed_systems() -> dict[str, System]:
    """Return every installed system by its name, in the order of names."""
    found = sorted(entry_points(group=ENTRY_POINTS), key=lambda one: one.name)
    return {entry_point.name: load_system(entry_point) for entry_point in found}


def load_system(entry_point: EntryPoint) -> System:
    """Load a system; a plug-in that fails must not stop those that want another one."""
    try:
        loaded = entry_point.load()
        system = loaded() if isinstance(loaded, type) else loaded
        if not isinstance(system, System):
            problem = f"{entry_point.value} is no System"
        elif system.name != entry_point.name:
            problem = f"{entry_point.value} is named {system.name}"
        else:
            return system
    except Exception as error:
        first, *_ = str(error).splitlines() or [""]
        problem = f"{type(error).__name__}: {first}"
    return BrokenSystem(entry_point.name, problem)


def select_systems(names: Iterable[str], installed: Mapping[str, System]) -> list[System]:
    """
    Return the systems with these names; with `all` among them, every one that can be loaded.

    Raises `UsageError` for an unknown name, and for a system that cannot be loaded.
    """
    wanted = list(dict.fromkeys(names))
    unknown = [name for name in wanted if name not in installed and name != "all"]
    if unknown:
        raise UsageError(
            f"unknown system {', '.join(unknown)}: BRAIN_SYSTEMS is `all`, or names out of "
            f"{', '.join(installed)}"
        )
    selected = [installed[name] for name in wanted if name != "all"]
    for system in selected:
        if isinstance(system, BrokenSystem):
            raise UsageError(f"the system {system.name} {system.summary}")
    if "all" in wanted:
        return [one for one in installed.values() if not isinstance(one, BrokenSystem)]
    return selected


def schemas_of(systems: Iterable[System]) -> list[Schema]:
    """Return the schemas of the core and of `systems`, each once, in the order to apply them."""
    return list(dict.fromkeys([core_schema(), *(s for system in systems for s in system.schemas)]))
