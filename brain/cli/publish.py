"""brain publish"""

from __future__ import annotations

from typing import Any

import asyncpg
import click
import orjson

from brain.cli import arguments
from brain.cli.database import database_option, on_database
from brain.database.publish import publish
from brain.database.url import shown
from brain.errors import MessageRefused, MigrationsPending, UsageError


@click.command("publish")
@click.argument("channel", callback=arguments.name)
@click.argument("type", callback=arguments.name)
@click.argument("data", callback=arguments.text, default="{}")
@click.option(
    "--to", "recipient", callback=arguments.text, metavar="USER", help="Send it to this user alone."
)
@database_option
def publish_command(
    channel: str, type: str, data: str, recipient: str | None, **flags: Any
) -> None:
    """Publish a message on a channel; DATA is JSON.

    brain publish news greeting '{"text": "hello"}'
    """

    async def work(connection: asyncpg.Connection, url: str) -> None:
        try:
            await publish(connection, channel, type, orjson.Fragment(data), recipient)
        except MessageRefused as error:
            raise UsageError(str(error)) from error
        except (asyncpg.InvalidSchemaNameError, asyncpg.UndefinedFunctionError) as error:
            raise MigrationsPending(
                f"{shown(url)} lacks Brain's schema: run `brain migrate`"
            ) from error

    # A role that may publish need not have a right to read which migrations are applied.
    on_database(work, checks_schema=False, **flags)
    click.echo(f"published {type} on the channel {channel}")
