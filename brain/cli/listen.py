"""brain listen"""

from __future__ import annotations

from typing import Literal

import click

from brain.cli import arguments

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
    # The client takes a while to import, and `brain --help` imports this module.
    from brain.cli.listening.command import run

    run(
        channels=channels,
        conditions=conditions,
        key=key,
        snapshot=snapshot,
        since=since,
        after=after,
        cursor_file=cursor_file,
        form=form,
        count=count,
        until_live=until_live,
        give_up=give_up,
        url=url,
        token=token,
        token_file=token_file,
    )
