"""The database of a command."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import asyncpg
import click
from pydantic import ValidationError

from brain.database import migrations
from brain.database.connection import connected, translating_errors
from brain.database.schema_files import core_schema
from brain.database.url import UrlWithCommand, check_url, shown
from brain.embedded.binaries import find_binaries
from brain.embedded.server import EmbeddedServer, default_folder, running_url, serve_embedded
from brain.environment_file import read_environment_file
from brain.errors import (
    EmbeddedServerError,
    MigrationUnsupported,
    UsageError,
    WrongDatabaseUrl,
)
from brain.process.signals import end_on_signals
from brain.settings import Settings

Result = TypeVar("Result")


def database_option(command: Callable[..., None]) -> Callable[..., None]:
    return click.option(
        "--database-url",
        metavar="URL",
        help="The PostgreSQL to use: postgresql://user:password@host:port/database. Without one, "
        "Brain uses a server of its own, with its data in your home folder.  "
        "[BRAIN_DATABASE_URL or DATABASE_URL]",
    )(command)


def read_settings(**flags: Any) -> Settings:
    """
    Return the settings: of the options, else of the environment, else of the file of settings.

    Raises `UsageError`, with the setting that is wrong.
    """
    try:
        return Settings(**{name: value for name, value in flags.items() if value is not None})
    except ValidationError as error:
        raise UsageError(explanation(error, flags) + place_of(error, flags)) from error


def place_of(error: ValidationError, flags: Mapping[str, Any]) -> str:
    """Return where in the file of settings the wrong one is, if it is there."""
    path = flags.get("env_file") or os.environ.get("BRAIN_ENV_FILE")
    name = str(error.errors()[0]["loc"][0]).upper().removeprefix("BRAIN_")
    names = (f"BRAIN_{name}", name)
    environment = {variable.upper() for variable, value in os.environ.items() if value}
    is_elsewhere = flags.get(name.lower()) is not None or not environment.isdisjoint(names)
    if not path or is_elsewhere:
        return ""
    found = {n.upper(): variable for n, variable in read_environment_file(Path(path)).items()}
    lines = [found[one].line for one in names if one in found]
    return f" ({path}, line {lines[0]})" if lines else ""


def explanation(error: ValidationError, flags: Mapping[str, Any]) -> str:
    """Return in a line which setting is wrong, what it was set to, and what is right."""
    first = error.errors()[0]
    # Where a setting has a plain variable too, pydantic names the variable, otherwise the field.
    name = str(first["loc"][0]).lower().removeprefix("brain_")
    field = Settings.model_fields[name]
    value = "it" if "Secret" in str(field.annotation) else repr(first["input"])
    reason = first["msg"].removeprefix("Value error, ").replace("Input", value, 1)
    # Without pydantic's own reason: unable to parse string as an integer.
    reason = reason.partition(", unable")[0].replace("should be a valid", "is not a valid")
    variable = f"BRAIN_{name.upper()}"
    if flags.get(name) is not None:
        return f"--{name.replace('_', '-')} is wrong: {reason} (it sets {variable})"
    if field.validation_alias is not None:
        variable = f"{variable} or {name.upper()}"
    return f"{variable} is wrong: {reason}"


class Database(NamedTuple):
    """The database of a command."""

    url: str
    psql: str
    """A psql command that connects to it."""
    server: EmbeddedServer | None = None
    """The embedded server, if it was started for this command."""


@contextmanager
def database(settings: Settings, *, may_share: bool = False) -> Iterator[Database]:
    """
    Yield the database of the settings.

    Without a URL in them that is the embedded server, started for as long as the context lasts,
    unless the command `may_share` one that runs already.
    """
    if (url := settings.database_url) is not None:
        require_url(url)
        psql = f"psql {shlex.quote(shown(url))}"
        if settings.database_password_command is not None:
            url = UrlWithCommand(url, settings.database_password_command)
        yield Database(url, psql)
        return
    binaries = find_binaries()
    folder = None if settings.ephemeral else default_folder(binaries.major)
    if may_share and folder and (url := running_url(folder)):
        with naming_the_folder(folder):
            yield Database(url, f"psql {url}")
        return
    with serve_embedded(folder, binaries=binaries) as server, naming_the_folder(server.folder):
        psql = "psql" if shutil.which("psql") else shlex.quote(str(server.binaries.psql))
        port = "" if server.port == 5432 else f" -p {server.port}"
        yield Database(server.url, f"{psql} -h localhost{port} -U cecelia cecelia", server)


def require_url(url: str) -> None:
    """Raise `WrongDatabaseUrl`, with the name of the setting, unless it is a PostgreSQL URL."""
    try:
        check_url(url)
    except WrongDatabaseUrl as error:
        # Without what it is: a part of it may be a password, or all of it.
        raise WrongDatabaseUrl(
            f"--database-url, BRAIN_DATABASE_URL or DATABASE_URL is wrong: {error}"
        ) from error


def has_database(settings: Settings) -> bool:
    """Return True if the settings name a database, or the embedded server has one already."""
    if settings.database_url is not None:
        return True
    try:
        folder = default_folder(find_binaries().major)
    except EmbeddedServerError:
        return False
    return not settings.ephemeral and (folder / "data").exists()


@contextmanager
def naming_the_folder(folder: Path) -> Iterator[None]:
    """If the embedded database cannot be upgraded, name the folder to remove in the error."""
    try:
        yield
    except MigrationUnsupported as error:
        raise MigrationUnsupported(
            f"the database in {folder} holds Brain's schema from before its first release, which "
            f"cannot be upgraded; to start afresh, stop Brain and: rm -r {shlex.quote(str(folder))}"
        ) from error


def run(url: str, work: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine that works on a database; raises its errors as Brain's own."""
    with translating_errors(url):
        return asyncio.run(work)


def on_database(
    work: Callable[[asyncpg.Connection, str], Coroutine[Any, Any, Result]],
    *,
    checks_schema: bool = True,
    **flags: Any,
) -> Result:
    """
    Do `work` on the database of the settings, with its URL.

    The database must be migrated, which not every role may find out: unless `checks_schema`, what
    is missing is left to the work.
    """

    async def over_a_connection(url: str) -> Result:
        if checks_schema:
            await migrations.require_current(url, [core_schema()])
        async with connected(url) as connection:
            return await work(connection, url)

    end_on_signals()
    with database(read_settings(**flags), may_share=True) as (url, *_):
        return run(url, over_a_connection(url))
