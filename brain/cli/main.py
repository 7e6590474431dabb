"""The command line."""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

import click

import brain
from brain.cli.log_format import log_format_of
from brain.errors import BrainError
from brain.log_events import COMMAND_FAILED
from brain.problems import printable, without_passwords
from brain.process.log_config import configure_logging
from brain.process.log_formatters import formatter_for

logger = logging.getLogger(__name__)

# The module of each command, in `brain.cli`.
COMMANDS = {
    "asyncapi": "describe",
    "doctor": "doctor",
    "listen": "listen",
    "migrate": "migrate",
    "openapi": "describe",
    "publish": "publish",
    "restrict": "watches",
    "serve": "serve",
    "systems": "systems",
    "token": "token",
    "types": "types",
    "unwatch": "watches",
    "watch": "watches",
    "watches": "watches",
}


def main() -> None:
    """Run the command line; an error is one line and an exit status."""
    log_format = log_format_of(sys.argv[1:], os.environ)
    configure_logging(formatter_for(log_format, is_starting=True), "info")
    try:
        sys.exit(commands(standalone_mode=False))
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        sys.exit(error.exit_code)
    except BrainError as error:
        fail(log_format, error, str(error), error.exit_code)
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "brain"
        text = without_arguments(error.format_message(), sys.argv[1:])
        fail(log_format, error, f"{text} Try '{command} --help'.", error.exit_code)
    except click.Abort:
        sys.exit(128 + signal.SIGINT)


def fail(log_format: str, error: Exception, text: str, status: int) -> NoReturn:
    """Print why a command has failed, as a line of the log where that is JSON, and exit."""
    if log_format == "json":
        kind = type(error).__name__
        COMMAND_FAILED.log(logger, "%s", text, error_type=kind, exit_code=status)
    else:
        click.echo(f"brain: {printable(text)}", err=True)
    sys.exit(status)


# What click says of arguments that nothing is asked for: with what was typed in parentheses.
EXTRA = re.compile(r"(Got unexpected extra arguments?) \(.*\)", re.DOTALL)


def without_arguments(text: str, arguments: Sequence[str]) -> str:
    """
    Return an error of click's without the arguments that may hold the password of a URL.

    Where a shell has split one at a blank, no part of it looks like a URL.
    """
    text = EXTRA.sub(r"\1.", text)
    for argument in arguments:
        for given in (argument, argument.partition("=")[2]):
            has_url = "://" in given or ("@" in given and ":" in given)
            if has_url or without_passwords(given) != given:
                text = text.replace(given, "...").replace(repr(given)[1:-1], "...")
    return text


class LazyCommands(click.Group):
    """Imports the module of a command when the command is used: importing all takes 0.5 s."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"brain.cli.{COMMANDS[cmd_name]}")
        command: click.Command = getattr(module, f"{cmd_name}_command")
        return command


@click.group(cls=LazyCommands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(brain.__version__, message="brain %(version)s")
def commands() -> None:
    """Brain pushes PostgreSQL row changes to WebSocket clients.

    Options with a name in brackets can also be set in the environment: BRAIN_PORT=5222 is --port
    5222. An option overrides BRAIN_PORT, which overrides PORT.
    """
