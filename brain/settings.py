"""The only reader of the environment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AliasChoices, BeforeValidator, Field, SecretStr
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


def words(text: str) -> list[str]:
    return text.replace(",", " ").split()


Words = Annotated[
    tuple[str, ...],
    NoDecode,
    BeforeValidator(lambda value: words(value) if isinstance(value, str) else value),
]
"""Texts with spaces or commas between them."""


def also(plain: str) -> AliasChoices:
    """Read BRAIN_X from the environment, or the X that hosting platforms set."""
    return AliasChoices(f"BRAIN_{plain}", plain)


class Settings(BaseSettings):
    """Every setting; `BRAIN_` and the name in capitals is its environment variable."""

    model_config = SettingsConfigDict(
        env_prefix="BRAIN_",
        env_ignore_empty=True,
        frozen=True,
        populate_by_name=True,
        extra="ignore",
    )

    database_url: str | None = Field(default=None, validation_alias=also("DATABASE_URL"))
    """The PostgreSQL to follow, directly and not through a pooler in transaction mode. Without one,
    the embedded server is started."""
    host: str = Field(default="localhost", validation_alias=also("HOST"))
    """Where to listen. `localhost` is both loopback addresses."""
    port: int = Field(default=5221, ge=0, le=65535, validation_alias=also("PORT"))
    """Where to listen; 0 lets the system choose."""
    migrate: bool = True
    """Whether to bring the database up to date before serving."""
    ephemeral: bool = False
    """Whether the embedded server's data is thrown away at the end."""
    workers: int = Field(default=1, ge=1)
    """How many processes serve, all on the same port."""

    shutdown_seconds: float = Field(default=10.0, gt=0)
    """How long clients may take to leave when the server stops, before they are cut off."""
    max_message_bytes: int = Field(default=65536, gt=0)
    """The longest message a client may send; a longer one closes its connection with 1009."""
    ping_seconds: float = Field(default=20.0, gt=0)
    """How often a client is asked for a sign of life, and how long it may take to give one."""
    unread_seconds: float = Field(default=60.0, gt=0)
    """How long a client may leave unread what it is sent before its connection is cut."""
    handshake_seconds: float = Field(default=10.0, gt=0)
    """How long a client may take to say what it wants before its connection is cut."""
    messages_per_second: float = Field(default=100.0, ge=1)
    """How much a client may say, pings included; twice as much at once, then 4029."""
    bytes_per_second: float = Field(default=1024 * 1024, ge=1024)
    """How much a client may say, in characters; twice as much at once, then 4029."""
    subscriptions: int = Field(default=100, gt=0)
    """How many channels, rows and filters a client may subscribe to."""
    message_depth: int = Field(default=64, gt=0)
    """How deeply what a client says may be nested; 4501 otherwise."""
    connections: int = Field(default=50_000, gt=0)
    """How many WebSockets a process takes; the next is refused with 503."""
    connections_per_address: int = Field(default=1000, gt=0)
    """How many from one address, this machine's own excepted; the next is refused with 429."""
    connections_per_user: int = Field(default=100, gt=0)
    """How many of one user; the next is refused with 429."""
    anonymous_connections: int = Field(default=50_000, gt=0)
    """How many without a user; the next is refused with 503."""
    heartbeat_seconds: float = Field(default=20.0, gt=0, le=25)
    """After how long without a message a client that asked for cursors gets a heartbeat."""
    ring_bytes: int = Field(default=64 * 1024 * 1024, gt=0)
    """How much of the recent past is kept in memory for clients that lag behind."""
    ring_seconds: float = Field(default=60.0, gt=0)
    """How long it is kept there; whoever is further behind is cut off, and reads the log."""
    snapshot_bytes: int = Field(default=64 * 1024 * 1024, gt=0)
    """How much a client may have read at once of the tables that it follows, or of a feed."""
    feed_seconds: float = Field(default=1.0, gt=0)
    """How much time lies between two states of a feed at least."""

    jwt_secret: SecretStr | None = None
    """With what tokens are signed, at least 32 bytes. With this, a key file or a URL of keys,
    clients have to say who they are."""
    jwt_key_file: Path | None = None
    """A file with the public key of whoever signs tokens, in PEM."""
    jwt_keys_url: str | None = None
    """Where the public keys are to be fetched, as a JSON Web Key Set."""
    jwt_algorithms: Words = ()
    """By which tokens may be signed, of one family; HS256 with a secret, otherwise RS256."""
    jwt_audience: str | None = None
    """For whom a token must be meant."""
    jwt_issuer: str | None = None
    """By whom a token must be issued."""
    jwt_leeway_seconds: float = Field(default=10.0, ge=0, le=60)
    """By how much clocks may differ."""
    default_channels: Words = ("*",)
    """What somebody may hear whose token has no claim `channels`; `*` stands for any text."""
    public_channels: Words = ()
    """What anybody may hear, where tokens are asked for."""
    allowed_origins: Words = ()
    """From which pages of other hosts browsers may connect, as `https://example.org`."""
    development_tokens: bool | None = None
    """Whether any word is a token, as `test-123` is that of `user_test-123`, for trying things out.
    Unless said, it is so where clients need no other and only this machine can connect."""

    database_timeout_seconds: float = Field(default=4.0, gt=0)
    """How long the database may take to answer the listener before the connection is given up."""
    idle_poll_seconds: float = Field(default=5.0, gt=0)
    """How often the log and the connection are looked at while nothing rings."""
    retention_seconds: float = Field(default=86400.0, gt=0)
    """How long what happened can be told to a client that comes back; then it is forgotten."""
    busy_from_rate: float = Field(default=200.0, gt=0)
    """From how many changes a second a node looks by the clock, and writers need not ring."""
    calm_below_rate: float = Field(default=100.0, gt=0)
    """Below how many changes a second it goes back to being rung for."""
    busy_tick_seconds: float = Field(default=0.003, gt=0)
    """How often a busy node looks."""
