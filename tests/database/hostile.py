"""A database whose every session begins with settings that nobody would expect."""

from __future__ import annotations

from urllib.parse import urlsplit

import asyncpg

from brain.database.log import LogConnection

HOSTILE = {
    "statement_timeout": "150ms",
    "idle_session_timeout": "150ms",
    "idle_in_transaction_session_timeout": "150ms",
    "lock_timeout": "1ms",
    "default_transaction_isolation": "serializable",
    "default_transaction_read_only": "on",
    "default_transaction_deferrable": "on",
    "synchronous_commit": "off",
    "search_path": "nowhere",
    "row_security": "off",
    "check_function_bodies": "off",
    "standard_conforming_strings": "off",
    "array_nulls": "off",
    "transform_null_equals": "on",
    "quote_all_identifiers": "on",
    "xmloption": "document",
    "plpgsql.extra_errors": "all",
    "plpgsql.extra_warnings": "all",
    "bytea_output": "escape",
    "datestyle": "German",
    "intervalstyle": "iso_8601",
    "timezone": "Asia/Kolkata",
    "extra_float_digits": "-10",
    "lc_monetary": "POSIX",
    "lc_numeric": "POSIX",
    "lc_time": "POSIX",
    "xmlbinary": "hex",
    "client_min_messages": "error",
    "jit": "on",
    "plan_cache_mode": "force_custom_plan",
    "tcp_keepalives_idle": "7200",
    "tcp_keepalives_interval": "75",
    "tcp_keepalives_count": "9",
    "application_name": "somebody",
}
HOSTILE_SINCE = {17: {"transaction_timeout": "150ms"}}


def hostile_settings(connection: LogConnection) -> dict[str, str]:
    """Return those that the server knows, by their names."""
    settings = dict(HOSTILE)
    for major, newer in HOSTILE_SINCE.items():
        if connection.get_server_version().major >= major:
            settings |= newer
    return settings


async def make_hostile(url: str, *, of_role: bool = False) -> None:
    """Make them the defaults of the database, or of its role in it."""
    connection = await asyncpg.connect(url)
    database = urlsplit(url).path.removeprefix("/")
    role = await connection.fetchval("SELECT quote_ident(current_user)")
    subject = f"ROLE {role} IN DATABASE {database}" if of_role else f"DATABASE {database}"
    for name, value in hostile_settings(connection).items():
        await connection.execute(f"ALTER {subject} SET {name} = '{value}'")
    await connection.close()


async def ordinary_connection(url: str) -> asyncpg.Connection:
    """Connect as an application would that sets what it needs."""
    connection = await asyncpg.connect(url)
    settings = {
        **{name: "0" for name in hostile_settings(connection) if name.endswith("_timeout")},
        "default_transaction_read_only": "off",
        "default_transaction_isolation": "'read committed'",
        "search_path": "public",
    }
    await connection.execute("".join(f"SET {name} = {to};" for name, to in settings.items()))
    return connection
