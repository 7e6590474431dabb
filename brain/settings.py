"""Every setting; nothing else reads the environment, or the file that stands for it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    AliasChoices,
    BeforeValidator,
    Field,
    SecretStr,
    field_validator,
)
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from brain.environment_file import read_environment_file

# The oldest major version of PostgreSQL that Brain works with.
OLDEST_POSTGRESQL = 14


def words(text: str) -> list[str]:
    return text.replace(",", " ").split()


Words = Annotated[
    tuple[str, ...],
    NoDecode,
    BeforeValidator(lambda value: words(value) if isinstance(value, str) else value),
]
"""Words separated by spaces or commas."""


def not_empty(values: tuple[str, ...]) -> tuple[str, ...]:
    if not values:
        raise ValueError("there must be at least one word")
    return values


def normal_origin(origin: str) -> str:
    """Return an origin as browsers write it: in small letters, without the default port."""
    small = origin.lower()
    ports = {"http": ":80", "https": ":443"}
    return small.removesuffix(ports.get(small.partition("://")[0], "\0"))


def origins(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        if value != "null" and not ORIGIN.fullmatch(value):
            raise ValueError(
                f"{value!r} should be the origin of a page, as https://example.org,"
                " http://localhost:5173 or http://localhost:*, without a path"
            )
    return tuple(normal_origin(value) for value in values)


Origins = Annotated[Words, AfterValidator(origins)]
"""Origins of web pages, as browsers write them; with `:*`, of any port."""

ORIGIN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#@*]+(:\*)?")
HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\s:/?#@\[\]]+))(:[0-9]{0,5})?")


def host_name(host: str) -> str | None:
    """
    Return the name in a `Host`, or of a place to listen, in small letters; None if there is none.

    It is without the port, the brackets of IPv6 and the dot of the root.
    """
    match = HOST.fullmatch(host)
    name = (match[1] or match[2].removesuffix(".").lower()) if match else host
    try:
        return str(ip_address(name))
    except ValueError:
        return name if match and match[2] and name else None


def is_loopback_name(name: str | None) -> bool:
    """Return True for `localhost` and the addresses of this machine."""
    try:
        return name == "localhost" or (name is not None and ip_address(name).is_loopback)
    except ValueError:
        return False


def host_names(values: tuple[str, ...]) -> tuple[str, ...]:
    names = []
    for value in values:
        name, match = host_name(value), HOST.fullmatch(value)
        has_port = match is not None and match[3] is not None
        if name is None or has_port or (name != "*" and "*" in name.removeprefix("*.")):
            raise ValueError(
                f"{value!r} should be a name or an address by which Brain is reached, as"
                " brain.example.org, *.example.org or 192.0.2.1, without a scheme and a port"
            )
        names.append(name)
    return tuple(names)


HostNames = Annotated[Words, AfterValidator(host_names)]
"""Names of hosts, in small letters, and addresses."""


LogLevel = Annotated[
    Literal["debug", "info", "warning", "error"],
    BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value),
]
"""A level of the log, in small letters."""


def networks(values: tuple[str, ...]) -> tuple[str, ...]:
    try:
        found = [ip_network(value) for value in values]
        return tuple(
            str(each.network_address if each.num_addresses == 1 else each) for each in found
        )
    except ValueError as error:
        raise ValueError(
            f"{error}: it should be an address or a network, as 192.0.2.1 or 10.0.0.0/8"
        ) from error


Networks = Annotated[Words, AfterValidator(networks)]
"""Addresses and networks."""


def also(plain: str) -> AliasChoices:
    """Read BRAIN_X from the environment, or the X that hosting platforms set."""
    return AliasChoices(f"BRAIN_{plain}", plain)


class FileSource(EnvSettingsSource):
    """Takes the variables of a file for those of the environment."""

    def __init__(self, settings_cls: type[BaseSettings], path: Path) -> None:
        self._path = path
        super().__init__(settings_cls)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        variables = read_environment_file(self._path)
        return {name.lower(): each.value for name, each in variables.items() if each.value}


class Settings(BaseSettings):
    """
    Every setting; `BRAIN_` and the name in capitals is its environment variable.

    What the environment does not have is taken from the file that `env_file` names. Raises
    `UsageError` if that cannot be read.
    """

    model_config = SettingsConfigDict(
        env_prefix="BRAIN_",
        env_ignore_empty=True,
        frozen=True,
        populate_by_name=True,
        extra="ignore",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        given = {**env_settings(), **init_settings()}
        if given.get("env_file") is None:
            return init_settings, env_settings
        return init_settings, env_settings, FileSource(settings_cls, Path(given["env_file"]))

    @field_validator("*")
    @classmethod
    def is_finite(cls, value: object) -> object:
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"'{value:g}' should be a finite number")
        return value

    database_url: str | None = Field(default=None, validation_alias=also("DATABASE_URL"))
    """The PostgreSQL to follow, directly and not through a pooler in transaction mode. Without one,
    the embedded server is started."""
    host: str = Field(default="localhost", validation_alias=also("HOST"))
    """Where to listen. `localhost` is both loopback addresses."""
    port: int = Field(default=5221, ge=0, le=65535, validation_alias=also("PORT"))
    """Where to listen; 0 lets the system choose."""
    migrate: bool = True
    """Migrate the database before serving."""
    ephemeral: bool = False
    """Delete the embedded server's data at the end."""
    systems: Words = ()
    """The systems that are on: `all`, or names. Unless set, all with the embedded server, and none
    with another database."""
    workers: int = Field(default=1, ge=1)
    """How many processes serve, all on the same port."""

    env_file: Path | None = None
    """A file with lines `BRAIN_X=value`, as systemd's EnvironmentFile= has them. The environment
    overrides it. SIGHUP has it read again."""
    log_format: Literal["text", "json"] = "text"
    """How lines of the log look: for people, or an object of JSON each."""
    log_level: LogLevel = "info"
    """The least level of lines that Brain logs: debug, info, warning or error."""
    log_addresses: bool = False
    """Log the address of a client with the end of its connection."""

    database_password_command: str | None = None
    """A command that prints the password of the database, run for each new connection. Without one,
    the password is that of the URL, or of the file that its parameter `passfile` or PGPASSFILE
    names, which is read as often."""
    shutdown_seconds: float = Field(default=10.0, gt=0)
    """How long clients may take to close when the server stops, before they are aborted."""
    drain_seconds: float = Field(default=20.0, ge=0, le=3600)
    """Over how long 10,000 clients and more are closed when the server stops, so that not all of
    them come back at once; fewer take their share of it. 0: all at once."""
    drain_delay_seconds: float = Field(default=0.0, ge=0, le=3600)
    """How long a server that stops still accepts connections, while `/readyz` says that it stops
    already: until a load balancer has asked."""
    worker_timeout_seconds: float = Field(default=30.0, ge=1)
    """How long one of several workers may give no sign of life before it is killed and replaced."""
    max_message_bytes: int = Field(default=65536, gt=0)
    """The longest message a client may send; a longer one closes its connection with 1009."""
    ping_seconds: float = Field(default=20.0, gt=0)
    """The interval of WebSocket pings, and how long a client may take to answer one."""
    unread_timeout_seconds: float = Field(default=60.0, gt=0)
    """How long a client may leave unread what it is sent before its connection is aborted."""
    handshake_timeout_seconds: float = Field(default=10.0, gt=0)
    """How long a client may take to send the head of a request, and as long for the body."""
    messages_per_second: float = Field(default=100.0, ge=1)
    """Rate limit per client, in messages, and of pings, pongs and fragments beside them; burst of
    twice that, then 4029."""
    bytes_per_second: float = Field(default=1024 * 1024, ge=1024)
    """Rate limit per client, in bytes; burst of twice that, then 4029."""
    max_subscriptions: int = Field(default=100, gt=0)
    """How many channels, rows and filters a client may subscribe to."""
    max_message_depth: int = Field(default=64, gt=0)
    """How deeply the JSON of a client may be nested; 4501 otherwise."""
    max_connections: int = Field(default=50_000, gt=0)
    """How many WebSockets and streams a process accepts; the next is refused with 503."""
    max_connections_per_address: int = Field(default=1000, gt=0)
    """How many from one address, loopback excepted; the next is refused with 429."""
    max_connections_per_user: int = Field(default=100, gt=0)
    """How many of one user; the next is refused with 429."""
    max_anonymous_connections: int = Field(default=50_000, gt=0)
    """How many without a user; the next is refused with 503."""
    heartbeat_seconds: float = Field(default=20.0, gt=0, le=25)
    """After how long without a message a client with cursors gets a heartbeat."""
    presence_grace_seconds: float = Field(default=5.0, ge=0, le=3600)
    """How long after the end of the last connection a user is published as offline, unless another
    begins; 0: at once."""
    ring_bytes: int = Field(default=64 * 1024 * 1024, gt=0)
    """How many bytes of recent events are kept in memory, for lagging clients and resumes."""
    ring_seconds: float = Field(default=60.0, gt=0)
    """How long recent events are kept in memory; a client that lags further behind is closed with
    4008."""
    snapshot_bytes: int = Field(default=64 * 1024 * 1024, gt=0)
    """The memory of all snapshots that are being sent, and the largest state of a feed."""
    table_timeout_seconds: float = Field(default=5.0, gt=0)
    """How long reading one table for a snapshot may take."""
    feed_interval_seconds: float = Field(default=1.0, gt=0)
    """The shortest interval between two states of a feed."""

    jwt_secret: SecretStr | None = None
    """The secret that tokens are signed with, at least 32 bytes. With this, a key file or a JWKS
    URL, clients need a token."""
    jwt_previous_secret: SecretStr | None = None
    """Another secret of which tokens are accepted, while BRAIN_JWT_SECRET is being replaced."""
    jwt_key_file: Path | None = None
    """A file with the public key that verifies tokens, in PEM."""
    jwks_url: str | None = None
    """The URL of a JSON Web Key Set with the public keys that verify tokens."""
    jwt_algorithms: Words = ()
    """Accepted signature algorithms, of one family; HS256 with a secret, otherwise RS256."""
    jwt_audience: str | None = None
    """The audience that a token must have."""
    jwt_issuer: str | None = None
    """The issuer that a token must have."""
    jwt_user_claim: Annotated[Words, AfterValidator(not_empty)] = ("sub", "userId")
    """The claims that may name the user of a token: the first that a token has."""
    jwt_leeway_seconds: float = Field(default=10.0, ge=0, le=60)
    """By how much clocks may differ."""
    default_channels: Words = ("*",)
    """What a token without the claim `channels` may read; `*` stands for any text."""
    public_channels: Words = ()
    """What clients without a token may read, where tokens are needed."""
    allowed_origins: Origins = ()
    """Origins of web pages of other hosts that may connect and use the HTTP API, as
    `https://example.org`; `http://localhost:*` is any port."""
    allowed_hosts: HostNames = ()
    """Names and addresses by which Brain may be addressed, as `brain.example.org`,
    `*.example.org` or `192.0.2.1`; `*` is any. Those of loopback are allowed where Brain listens on
    loopback. Required where it listens elsewhere and needs no token."""
    trusted_proxies: Networks = ("127.0.0.1", "::1")
    """Addresses and networks of the proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are
    believed."""
    development_tokens: bool | None = None
    """Accept any word as a token, for development: `test-123` is that of `user_test-123`. Unless
    set, they are accepted where no token is needed and only this machine can connect."""

    metrics_port: int | None = Field(default=None, ge=0, le=65535)
    """Where `/metrics` is served, and nothing else; 0 lets the system choose."""
    metrics_host: str = "localhost"
    """Where that port is."""
    metrics_token: SecretStr | None = Field(default=None, min_length=1)
    """The bearer token with which `/metrics` is served on the port of the clients, too."""
    metrics_channels: Words = ()
    """The channels that metrics show by name."""
    metrics_database_seconds: float = Field(default=30.0, ge=0.1)
    """How often the figures that only the database has are read."""

    database_timeout_seconds: float = Field(default=4.0, gt=0)
    """How long the database may take to answer before the connection is given up."""
    idle_poll_seconds: float = Field(default=5.0, gt=0)
    """How often the log is read and the connection checked while no notification comes."""
    retention_seconds: float = Field(default=86400.0, gt=0)
    """For how long clients can resume; older events are removed."""
    busy_from_rate: float = Field(default=200.0, gt=0)
    """From how many changes a second a node polls, and writers need not notify."""
    calm_below_rate: float = Field(default=100.0, gt=0)
    """Below how many changes a second it waits for notifications again."""
    busy_tick_seconds: float = Field(default=0.002, gt=0)
    """How often a busy node polls."""


# How similar the name of a setting is to one that is meant: one letter of four may be wrong.
NEAR = 0.75
# Variables of `brain listen`, which a shell may have for that.
OF_CLIENTS = ("BRAIN_URL", "BRAIN_TOKEN")


def unknown_variables(variables: Iterable[str], *, is_file: bool = False) -> list[str]:
    """
    Return a line for each variable that is no setting, with one that is near.

    An environment has others as well, which do not begin with `BRAIN_`; a file of settings has not.
    """
    known = [name.upper() for name in Settings.model_fields]
    plain = [name.upper() for name, one in Settings.model_fields.items() if one.validation_alias]
    lines = []
    for variable in sorted(variables):
        if is_file and not variable.upper().startswith("BRAIN_"):
            if variable.upper() not in plain:
                lines.append(f"{variable} is no setting")
            continue
        prefix, _, name = variable.upper().partition("_")
        if prefix == "BRAIN" and name not in known and variable not in OF_CLIENTS:
            near = get_close_matches(name, known, 1, NEAR)
            lines.append(
                f"{variable} is no setting" + (f": is it BRAIN_{near[0]}?" if near else "")
            )
    return lines
