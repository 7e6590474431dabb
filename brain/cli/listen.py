"""brain listen"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal

import click

from brain.cli import arguments
from brain.cli.listening.conditions import parsed_filter, parsed_key
from brain.cli.listening.errors import EndedBySignal
from brain.cli.listening.json_lines import json_line
from brain.cli.listening.line_writer import LineWriter
from brain.cli.listening.listener import Request, listen
from brain.cli.listening.moments import parsed_duration, seconds_since
from brain.cli.listening.output import LineOutput
from brain.cli.listening.readable_lines import readable_line
from brain.cli.listening.token_source import token_source
from brain.errors import UsageError
from brain.process.signals import end_on_signals

Form = Literal["json", "lines", "table"]

EPILOG = """\
Exit status: 0 ended as asked; 1 an error of this machine, as of the cursor file; 2 wrong usage;
3 Brain refuses what is asked for; 4 it closed the connection for good; 5 gave up connecting;
130, 143 ended by Ctrl-C or SIGTERM; 141 the reader of the output ended.
"""


@click.command("listen", epilog=EPILOG)
@click.argument("channels", nargs=-1, required=True, callback=arguments.text, metavar="CHANNEL...")
@click.option(
    "--where",
    "conditions",
    multiple=True,
    callback=arguments.text,
    metavar="COLUMN=VALUE",
    help="Only rows that match; with !=, <, <=, > or >= as well, or a filter as JSON. Of several, "
    "all have to hold.",
)
@click.option(
    "--key", callback=arguments.text, help="Only the row with this primary key; several as JSON."
)
@click.option("--snapshot", is_flag=True, help="The rows as they are come before what happens.")
@click.option(
    "--since",
    metavar="TIME",
    help="Begin with what happened in the last 30s, 10m, 2h or 1d, or since an ISO 8601 time; with "
    "--snapshot, the rows follow.",
)
@click.option("--after", metavar="CURSOR", help="Begin with what happened after a cursor.")
@click.option(
    "--cursor-file",
    type=click.Path(dir_okay=False),
    help="Keep the place in a file, and go on from there at the next start.",
)
@click.option("--json", "form", flag_value="json", help="A line of JSON for each change.")
@click.option("--lines", "form", flag_value="lines", help="A readable line for each change.")
@click.option(
    "--table",
    "form",
    flag_value="table",
    help="The rows, in place.  [default on a terminal; otherwise --json]",
)
@click.option("--count", type=click.IntRange(1), metavar="N", help="End after N changes or rows.")
@click.option("--until-live", is_flag=True, help="End once all that there was has come.")
@click.option(
    "--give-up",
    metavar="TIME",
    help="End when Brain was not reached for so long.  [default: never]",
)
@click.option(
    "--url",
    envvar="BRAIN_URL",
    default="http://localhost:5221",
    show_default=True,
    help="Where Brain is served.  [BRAIN_URL]",
)
@click.option(
    "--token",
    envvar="BRAIN_TOKEN",
    help="The token; other users of the machine see what is typed here.  [BRAIN_TOKEN]",
)
@click.option(
    "--token-file",
    type=click.Path(dir_okay=False),
    help="A file with the token, which is read at each attempt to connect.",
)
def listen_command(
    channels: tuple[str, ...],
    conditions: tuple[str, ...],
    key: str | None,
    snapshot: bool,
    since: str | None,
    after: str | None,
    cursor_file: str | None,
    form: Form | None,
    count: int | None,
    until_live: bool,
    give_up: str | None,
    url: str,
    token: str | None,
    token_file: str | None,
) -> None:
    """Print what happens on channels: the changes of rows, and messages.

    A lost connection is made again, and nothing is missed or printed twice. Without --json, --lines
    or --table it is a live table on a terminal, and a line of JSON for each change in a pipe.

    brain listen orders --where status=open --where 'total>=10' --snapshot --since 10m --json
    """
    if since is not None and after is not None:
        raise UsageError("--since and --after both say where to begin: one of them is enough")
    request = Request(
        url=url,
        channels=list(dict.fromkeys(channels)),
        token=token_source(token, token_file),
        where=parsed_filter(conditions),
        key=None if key is None else parsed_key(key),
        snapshot=snapshot,
        since=None if since is None else seconds_since(since, datetime.now(UTC)),
        after=after,
        cursor_file=cursor_file,
        count=count,
        until_live=until_live,
        give_up_seconds=None if give_up is None else parsed_duration(give_up),
    )
    run(request, form or ("table" if is_terminal() else "json"))


def is_terminal() -> bool:
    """Return True if a table can be drawn on standard output."""
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def run(request: Request, form: Form) -> None:
    """Listen to the end; a reader that has ended is one, without an error."""
    # What they say, the status of the connection says too.
    logging.getLogger("brain.client").addHandler(logging.NullHandler())
    logging.getLogger("brain.client").propagate = False
    end_on_signals()
    try:
        asyncio.run(listen_as_table(request) if form == "table" else listen_as_lines(request, form))
    except EndedBySignal as ended:
        sys.exit(128 + ended.number)
    except BrokenPipeError:
        sys.exit(128 + signal.SIGPIPE)


async def listen_as_lines(request: Request, form: Form) -> None:
    line_of: Callable[[Any], str] = json_line if form == "json" else readable_line
    await listen(request, LineOutput(line_of, LineWriter(sys.stdout.fileno())))


async def listen_as_table(request: Request) -> None:
    # rich takes a while to import.
    from rich.console import Console

    from brain.cli.listening.live_table import LiveTable

    if not is_terminal():
        raise UsageError("--table needs a terminal: use --json or --lines")
    table = LiveTable(request.channels, has_snapshot=request.snapshot, console=Console())
    async with table.drawn():
        await listen(request, table)
