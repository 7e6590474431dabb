"""brain types"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import asyncpg
import click

from brain.cli.database import database_option, on_database
from brain.errors import FileOutOfDate, UsageError
from brain.problems import printable
from brain.row_types.catalog import read_catalog
from brain.row_types.model import Catalog
from brain.row_types.python import python
from brain.row_types.typescript import typescript

WRITERS: dict[str, Callable[..., str]] = {"typescript": typescript, "python": python}

file_type = click.Path(dir_okay=False, path_type=Path)


@click.command("types")
@click.option(
    "--typescript", "language", flag_value="typescript", help="TypeScript interfaces, and Tables."
)
@click.option("--python", "language", flag_value="python", help="pydantic models.")
@click.option(
    "--omitted", is_flag=True, help="Have what is left out if it is too large be optional."
)
@click.option("--output", type=file_type, metavar="FILE", help="Write to a file.")
@click.option(
    "--check",
    type=file_type,
    metavar="FILE",
    help="Write nothing; exit with 1 if the file has other types.",
)
@database_option
def types_command(
    language: str | None, omitted: bool, output: Path | None, check: Path | None, **flags: Any
) -> None:
    """Print types for the rows of the watched tables."""
    if language is None:
        raise UsageError("one of --typescript and --python is needed")
    if output is not None and check is not None:
        raise UsageError("--output and --check exclude each other")

    async def work(connection: asyncpg.Connection, _: str) -> Catalog:
        return await read_catalog(connection)

    catalog = on_database(work, **flags)
    for table in catalog.dropped:
        click.echo(f"brain: warning: {printable(table)} was dropped: it has no type", err=True)
    command = f"brain types --{language}" + (" --omitted" if omitted else "")
    text = WRITERS[language](catalog, command, may_omit=omitted)
    if check is not None:
        require_equal(check, text, command)
    elif output is not None:
        write_file(output, text)
    else:
        click.echo(text, nl=False)


def require_equal(path: Path, text: str, command: str) -> None:
    """Raise `FileOutOfDate` unless a file has this text."""
    try:
        found = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        found = None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {reason(error)}") from error
    if found != text:
        what = "does not exist" if found is None else "differs from the database"
        raise FileOutOfDate(f"{path} {what}: {command} --output {path}")


def write_file(path: Path, text: str) -> None:
    """Replace a file as a whole: whatever reads it meanwhile gets the old text or the new one."""
    target = path.resolve()
    try:
        file, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with open(file, "w", encoding="utf-8", newline="\n") as stream:
                stream.write(text)
            os.chmod(temporary, mode_for(target))
            os.replace(temporary, target)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {reason(error)}") from error


def mode_for(path: Path) -> int:
    """Return the permissions of a file, or those that a new one gets."""
    with suppress(FileNotFoundError):
        return path.stat().st_mode & 0o7777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def reason(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else "it is not UTF-8"
