"""brain doctor"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from typing import Any

import click
from pydantic import ValidationError

from brain.cli import arguments
from brain.cli.database import database_option, explanation
from brain.cli.systems import systems_option
from brain.client import InvalidUrl
from brain.client.address import Address
from brain.database.url import UrlWithCommand
from brain.embedded.binaries import find_binaries
from brain.embedded.server import default_folder, running_url
from brain.errors import EmbeddedServerError, UsageError
from brain.process.signals import end_on_signals
from brain.settings import Settings, normal_origin

EPILOG = """\
Exit status: 0 nothing failed, warnings allowed; 1 a check failed; 2 wrong usage.
"""


@click.command("doctor", epilog=EPILOG)
@click.option(
    "--url",
    envvar="BRAIN_URL",
    metavar="URL",
    help="Where clients reach Brain, through the proxy if there is one.  [BRAIN_URL]",
)
@database_option
@click.option(
    "--token",
    envvar="BRAIN_TOKEN",
    help="The token of a client; other users of the machine see what is typed here.  [BRAIN_TOKEN]",
)
@click.option("--token-file", type=click.Path(dir_okay=False), help="A file with the token.")
@click.option(
    "--origin",
    metavar="ORIGIN",
    help="The origin of the page that connects, as https://example.org.",
)
@click.option(
    "--channel",
    "channels",
    multiple=True,
    callback=arguments.text,
    metavar="NAME",
    help="A channel that the client reads: may it, and why; may be repeated.",
)
@click.option(
    "--where",
    "conditions",
    multiple=True,
    callback=arguments.text,
    metavar="COLUMN=VALUE",
    help="The filter of the client, as `brain listen` has it.",
)
@click.option(
    "--metrics-url",
    metavar="URL",
    help="The metrics of the running Brain.  [default: http://localhost:BRAIN_METRICS_PORT/metrics]",
)
@systems_option
@click.option("--json", "is_json", is_flag=True, help="Print one JSON object.")
def doctor_command(
    url: str | None,
    token: str | None,
    token_file: str | None,
    origin: str | None,
    channels: tuple[str, ...],
    conditions: tuple[str, ...],
    metrics_url: str | None,
    is_json: bool,
    **flags: Any,
) -> None:
    """Find out why a client hears nothing, and print the way out.

    Examined are the database, the nodes that serve it, the way from a client to Brain, its token
    and what that may read. Run it with the settings of `brain serve`, on the same machine if
    possible. It takes 30 seconds at most.

    brain doctor --url https://brain.example.org --token-file token --channel orders
    """
    # What follows takes a while to import, and `brain --help` imports this module.
    from brain.cli.listening.conditions import parsed_filter
    from brain.cli.listening.token_source import checked, read_token
    from brain.doctor.checks import CHECKS
    from brain.doctor.examination import Request
    from brain.doctor.report import json_of, text_of
    from brain.doctor.runner import first_cause, run

    for given in (url, metrics_url):
        if given is not None:
            require_url(given)
    if token_file is not None:
        token = read_token(token_file)
    elif token:
        token = checked(token, "the token")
    settings, errors = tolerant_settings(flags)
    request = Request(
        settings=settings,
        environment=dict(os.environ),
        setting_errors=errors,
        database_url=database_url(settings),
        url=url,
        token=token or None,
        origin=None if origin is None else normal_origin(origin),
        channels=list(dict.fromkeys(channels)),
        where=parsed_filter(conditions),
        metrics_url=metrics_url,
    )
    # What they say, the findings say too.
    logging.getLogger("brain").addHandler(logging.NullHandler())
    logging.getLogger("brain").propagate = False
    end_on_signals()
    results = asyncio.run(run(request, CHECKS))
    click.echo(json_of(results) if is_json else text_of(results))
    cause = first_cause(results)
    sys.exit(1 if cause is not None and cause.finding.verdict == "failure" else 0)


def require_url(url: str) -> None:
    """Raise `UsageError` unless `url` is one that Brain may have."""
    try:
        Address.of(url)
    except InvalidUrl as error:
        raise UsageError(str(error)) from error


def tolerant_settings(flags: dict[str, Any]) -> tuple[Settings, list[str]]:
    """Return the settings, and a line for each that is wrong, which then has its default."""
    given = {name: value for name, value in flags.items() if value is not None}
    errors: list[str] = []
    while True:
        try:
            return Settings(**given), errors
        except ValidationError as error:
            errors.append(explanation(error, flags))
            name = str(error.errors()[0]["loc"][0]).lower().removeprefix("brain_")
            given[name] = Settings.model_fields[name].get_default()


def database_url(settings: Settings) -> str | None:
    """Return the URL of the database; without one in the settings, of the embedded server."""
    if (url := settings.database_url) is not None:
        command = settings.database_password_command
        return url if command is None else UrlWithCommand(url, command)
    try:
        return running_url(default_folder(find_binaries().major))
    except EmbeddedServerError:
        return None
