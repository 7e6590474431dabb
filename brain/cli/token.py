"""brain token"""

from __future__ import annotations

import time
from typing import Any

import click
import jwt

from brain.auth.keys import allowed_algorithms
from brain.auth.policy import authority_for
from brain.cli.database import read_settings
from brain.errors import UsageError
from brain.settings import words


@click.command("token")
@click.option("--sub", "user", required=True, metavar="NAME", help="The user of the token.")
@click.option(
    "--channels",
    metavar="A,B*",
    help="The channels to read; * stands for any text.  [default: BRAIN_DEFAULT_CHANNELS]",
)
@click.option(
    "--publish", metavar="A,B*", help="The channels that it may publish on.  [default: none]"
)
@click.option(
    "--seconds",
    type=click.IntRange(1),
    default=3600,
    show_default=True,
    metavar="NUMBER",
    help="For how long it is valid.",
)
def token_command(user: str, channels: str | None, publish: str | None, seconds: int) -> None:
    """Print a token that is signed with BRAIN_JWT_SECRET."""
    settings = read_settings()
    authority_for(settings)
    if settings.jwt_secret is None:
        raise UsageError("BRAIN_JWT_SECRET is not set: it signs the token")
    now = int(time.time())
    claims: dict[str, Any] = {settings.jwt_user_claim[0]: user, "iat": now, "exp": now + seconds}
    if channels is not None:
        claims["channels"] = words(channels)
    if publish is not None:
        claims["publish"] = words(publish)
    if settings.jwt_audience is not None:
        claims["aud"] = settings.jwt_audience
    if settings.jwt_issuer is not None:
        claims["iss"] = settings.jwt_issuer
    algorithm = allowed_algorithms(settings, "secret")[0]
    click.echo(jwt.encode(claims, settings.jwt_secret.get_secret_value(), algorithm))
