"""brain asyncapi, and brain openapi"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click
import orjson
from starlette.applications import Starlette

from brain.app import build_app
from brain.cli.database import read_settings
from brain.cli.systems import systems_of, systems_option
from brain.description.asyncapi import asyncapi_document
from brain.description.openapi import openapi_document
from brain.description.server_url import ServerUrl, parse_server_url
from brain.settings import Settings
from brain.system import installed_systems


def server_url(_: click.Context, parameter: click.Parameter, value: str | None) -> Any:
    """Return the parts of the URL that was given, if one was."""
    try:
        return None if value is None else parse_server_url(value)
    except ValueError as error:
        raise click.BadParameter(str(error), param=parameter) from None


def server_option(command: Callable[..., None]) -> Callable[..., None]:
    return click.option(
        "--server",
        metavar="URL",
        callback=server_url,
        help="Where clients reach Brain, as https://example.org/brain.  "
        "[default: http://HOST:PORT, of the settings]",
    )(command)


@click.command("asyncapi")
@systems_option
@server_option
def asyncapi_command(server: ServerUrl | None, **flags: Any) -> None:
    """Print an AsyncAPI document of all messages over WebSockets and in event streams."""
    settings = read_settings(**flags)
    app, needs_token = application(settings)
    where = server or listening_at(settings)
    show(asyncapi_document(app.routes, where, needs_token=needs_token))


@click.command("openapi")
@systems_option
@server_option
def openapi_command(server: ServerUrl | None, **flags: Any) -> None:
    """Print an OpenAPI document of all HTTP addresses."""
    settings = read_settings(**flags)
    app, needs_token = application(settings)
    where = server or listening_at(settings)
    show(openapi_document(app.routes, where.url("http"), needs_token=needs_token))


def application(settings: Settings) -> tuple[Starlette, bool]:
    """Return the application as it would be served, and whether it needs tokens."""
    systems = systems_of(settings, installed_systems())
    app = build_app("postgresql:", settings, systems)  # which connects when it is served
    return app, not app.state.services.authority.is_open


def listening_at(settings: Settings) -> ServerUrl:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return ServerUrl(f"{host}:{settings.port}")


def show(document: dict[str, Any]) -> None:
    click.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2))
