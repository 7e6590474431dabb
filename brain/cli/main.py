"""The command line."""

from __future__ import annotations

import signal
import sys

import click

import brain
from brain.cli.migrate import migrate_command
from brain.cli.publish import publish_command
from brain.cli.serve import serve_command
from brain.cli.systems import systems_command
from brain.cli.token import token_command
from brain.cli.watches import unwatch_command, watch_command, watches_command
from brain.errors import BrainError


def main() -> None:
    """Run the command line; an error is one line and an exit status."""
    try:
        sys.exit(commands(standalone_mode=False))
    except BrainError as error:
        line, status = f"brain: {error}", error.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        line, status = error.format_message(), error.exit_code
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "brain"
        line = f"brain: {error.format_message()} Try '{command} --help'."
        status = error.exit_code
    except click.Abort:
        sys.exit(128 + signal.SIGINT)
    click.echo(line, err=True)
    sys.exit(status)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(brain.__version__, message="brain %(version)s")
def commands() -> None:
    """Brain pushes PostgreSQL row changes to WebSocket clients.

    Every option can also be set in the environment, under the name in brackets: BRAIN_PORT=5222 is
    --port 5222. An option overrides BRAIN_PORT, which overrides PORT.
    """


for command in (
    serve_command,
    migrate_command,
    watch_command,
    unwatch_command,
    watches_command,
    publish_command,
    token_command,
    systems_command,
):
    commands.add_command(command)
