"""Which settings take effect without a restart, and how a running application takes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from brain.auth.keys import JwksKeys, Keys, keys_of, needs_tokens
from brain.auth.policy import Authority
from brain.errors import UsageError
from brain.session.connection_limiter import ConnectionLimiter, ConnectionQuotas
from brain.session.session import SessionContext, SessionLimits
from brain.settings import Settings

KEYS = (
    *("jwt_secret", "jwt_previous_secret", "jwt_key_file", "jwks_url", "jwt_algorithms"),
    *("jwt_audience", "jwt_issuer", "jwt_user_claim"),
)
"""How tokens are checked."""
QUOTAS = (
    *("max_connections", "max_connections_per_address", "max_connections_per_user"),
    "max_anonymous_connections",
)
"""How many connections there may be: for new ones."""
LIMITS = (
    *("max_message_bytes", "max_message_depth", "max_subscriptions"),
    *("messages_per_second", "bytes_per_second"),
)
"""What a client may send."""
LOG = ("log_level", "log_addresses")
RELOADED = (*KEYS, *QUOTAS, *LIMITS, *LOG)
"""What SIGHUP changes in a running Brain; all else needs a restart."""
UNREACHABLE = "the keys at BRAIN_JWKS_URL cannot be fetched"


class Change(NamedTuple):
    """What other settings change."""

    settings: Settings
    """Those to go on with: others where that is possible, the former ones otherwise."""
    applied: list[str]
    """The names of those that are other ones."""
    pending: list[str]
    """The names of those that need a restart."""


def change_to(new: Settings, former: Settings) -> Change:
    """Return what it changes to go on with `new` settings after the `former` ones."""
    changed = [
        name for name in Settings.model_fields if getattr(new, name) != getattr(former, name)
    ]
    reloaded: tuple[str, ...] = RELOADED
    if needs_tokens(new) != needs_tokens(former):
        # Who may read what, and by which names Brain may be addressed, was decided by that.
        reloaded = (*QUOTAS, *LIMITS, *LOG)
    applied = [name for name in changed if name in reloaded]
    pending = [name for name in changed if name not in reloaded]
    settings = former.model_copy(update={name: getattr(new, name) for name in applied})
    return Change(settings, applied, pending)


async def require_keys(settings: Settings, former: Settings) -> None:
    """
    Check that a process can go on with the keys of other settings.

    Raises `UsageError` if they are wrong, or those at another JWKS URL cannot be fetched.
    """
    keys = keys_of(settings)
    if isinstance(keys, JwksKeys) and settings.jwks_url != former.jwks_url:
        if not await keys.fetch():
            raise UsageError(UNREACHABLE)


def variables(names: list[str]) -> list[str]:
    """Return the variables of settings."""
    return [f"BRAIN_{name.upper()}" for name in names]


@dataclass
class LiveSettings:
    """The settings of a running application."""

    settings: Settings
    authority: Authority
    limiter: ConnectionLimiter
    sessions: SessionContext

    async def become(self, new: Settings) -> Change:
        """
        Go on with other settings, as far as that is possible.

        Raises `UsageError` if they are wrong, or the keys at another JWKS URL cannot be fetched;
        then nothing has changed.
        """
        change = change_to(new, self.settings)
        keys = await self._keys(change.settings)
        applied = change.applied
        has_other_keys = self.authority.replace_keys(keys, change.settings)
        if has_other_keys and not set(applied).intersection(KEYS):
            # The same file, or the same URL, has others.
            applied = [*applied, "jwt_key_file" if change.settings.jwt_key_file else "jwks_url"]
        self.settings = change.settings
        self.limiter.quotas = quotas(self.settings)
        self.sessions.limits.become(limits(self.settings))
        self.sessions.connection_log.has_addresses = self.settings.log_addresses
        self.sessions.registry.settings_changed()
        return change._replace(applied=applied)

    async def _keys(self, settings: Settings) -> Keys | None:
        """Return the keys of other settings, with those of a JWKS URL fetched."""
        keys = keys_of(settings)
        if not isinstance(keys, JwksKeys) or await keys.fetch():
            return keys
        former = self.authority.keys
        if settings.jwks_url != self.settings.jwks_url or not isinstance(former, JwksKeys):
            raise UsageError(UNREACHABLE)
        former.algorithms = keys.algorithms
        return former


def quotas(settings: Settings) -> ConnectionQuotas:
    return ConnectionQuotas(
        in_all=settings.max_connections,
        per_address=settings.max_connections_per_address,
        per_user=settings.max_connections_per_user,
        anonymous=settings.max_anonymous_connections,
    )


def limits(settings: Settings) -> SessionLimits:
    return SessionLimits(
        max_message_bytes=settings.max_message_bytes,
        max_message_depth=settings.max_message_depth,
        max_subscriptions=settings.max_subscriptions,
        messages_per_second=settings.messages_per_second,
        bytes_per_second=settings.bytes_per_second,
    )
