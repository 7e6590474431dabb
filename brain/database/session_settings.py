"""What a session of Brain is, whatever its role, its database or postgresql.conf say."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Mapping

import asyncpg
from asyncpg.protocol import protocol

# Set after connecting and not as start-up parameters, which PgBouncer refuses to pass on.
SETTINGS: Mapping[str, str] = {
    # First, as they hold for the rest: the client has its own timeouts, and nothing of Brain waits
    # for a lock of others for long, or keeps locks while it waits for its client.
    "statement_timeout": "0",
    "idle_session_timeout": "0",
    "idle_in_transaction_session_timeout": "10s",
    "lock_timeout": "2s",
    # Ticks are cut at READ COMMITTED; at other levels readers would conflict with writers.
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "default_transaction_deferrable": "off",
    "synchronous_commit": "on",
    # What a statement means.
    "quote_all_identifiers": "off",
    # No name is looked up where others may create what it would then mean.
    "search_path": "pg_catalog, pg_temp",
    "row_security": "on",
    "check_function_bodies": "on",
    "standard_conforming_strings": "on",
    "array_nulls": "on",
    "transform_null_equals": "off",
    "xmloption": "content",
    "plpgsql.extra_errors": "none",
    "plpgsql.extra_warnings": "none",
    # One text per value.
    "bytea_output": "hex",
    "datestyle": "ISO, MDY",
    "intervalstyle": "postgres",
    "timezone": "UTC",
    "extra_float_digits": "1",
    "lc_monetary": "C",
    "lc_numeric": "C",
    "lc_time": "C",
    "xmlbinary": "base64",
    "client_min_messages": "notice",
    # The few queries take milliseconds.
    "jit": "off",
    # The server notices a dead node, and releases its locks.
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "application_name": "brain",
}
SETTINGS_SINCE: Mapping[int, Mapping[str, str]] = {17: {"transaction_timeout": "0"}}
"""Those that a server knows from a version on."""
# The queries of a connection that is not lent run for ever with parameters that do not change their
# best plan: planned once, a read takes two thirds of the time. The functions of users, which a pool
# runs, may have others.
PLANNED_ONCE = {"plan_cache_mode": "force_generic_plan"}
PLANNED_AS_NEEDED = {"plan_cache_mode": "auto"}
# Without an encoding the server checks that what it sends is valid in that of the client, and a
# single text that is not would fail every read of it.
WITHOUT_ENCODING = {"client_encoding": "SQL_ASCII"}
ANY_BYTES = "brain_any_bytes"
"""The name of the codec by which asyncpg reads and writes the texts of such a database."""

# What a user's function may have left behind in a session that a pool lends to the next.
FORGET = """
    RESET ALL;
    SET SESSION AUTHORIZATION DEFAULT;
    RESET ROLE;
    CLOSE ALL;
    UNLISTEN *;
    SELECT pg_catalog.pg_advisory_unlock_all();
    DEALLOCATE ALL;
    DISCARD SEQUENCES;
"""
# To be run with the session settings. What `brain.open_reader` creates is kept: a session that
# reads tables does so again.
DISCARD_TEMPORARY = """
    DO $$ BEGIN
        IF EXISTS (SELECT FROM pg_depend
                    WHERE refclassid = 'pg_namespace'::regclass AND refobjid = pg_my_temp_schema()
                      AND (classid, objid) IS DISTINCT FROM (
                          'pg_proc'::regclass,
                          to_regprocedure('pg_temp.brain_read(text, text, bigint)'))) THEN
            DISCARD TEMP;
        END IF;
    END $$;
"""


def session_settings(connection: asyncpg.Connection, plans: Mapping[str, str]) -> str:
    """Return the statements that make a session one of Brain's."""
    settings = {**SETTINGS, **plans}
    for major, newer in SETTINGS_SINCE.items():
        if connection.get_server_version().major >= major:
            settings = {**newer, **settings}
    if connection.get_settings().server_encoding == "SQL_ASCII":
        read_any_bytes()
        settings |= WITHOUT_ENCODING
    return "".join(f"SET {name} = {as_written(name, value)};" for name, value in settings.items())


def as_written(name: str, value: str) -> str:
    return value if name == "search_path" else f"'{value}'"


def read_any_bytes() -> None:
    """
    Have asyncpg read the texts of a database without an encoding as UTF-8, wrong bytes as U+FFFD.

    It would read them as ASCII and fail; a codec that is set for a type is not used in its arrays.
    """
    if protocol.ENCODINGS_MAP["sql_ascii"] != ANY_BYTES:
        codec = codecs.CodecInfo(
            Utf8Encoder(),
            lambda data, errors="strict": codecs.utf_8_decode(data, "replace", True),
            name=ANY_BYTES,
        )
        codecs.register({ANY_BYTES: codec}.get)
        protocol.ENCODINGS_MAP["sql_ascii"] = ANY_BYTES


class Utf8Encoder:
    """
    Encodes texts, and keeps the last one.

    asyncpg 0.32 copies the bytes of a parameter after it has dropped its only reference to them:
    without another one, the end of a long text would be what the allocator writes there.
    """

    def __init__(self) -> None:
        self._last: tuple[bytes, int] = (b"", 0)

    def __call__(self, text: str, errors: str = "strict") -> tuple[bytes, int]:
        self._last = codecs.utf_8_encode(text, errors)
        return self._last


def holds_text(connection: asyncpg.Connection) -> Callable[[str], bool]:
    """Return whether the database's encoding has the characters of a text, as Python knows it."""
    encoding = connection.get_settings().server_encoding.lower()
    if encoding in ("utf8", "sql_ascii"):
        return lambda text: True
    try:
        codec = codecs.lookup(protocol.ENCODINGS_MAP.get(encoding, encoding))
    except LookupError:  # Python has no such codec
        return str.isascii

    def is_held(text: str) -> bool:
        try:
            codec.encode(text)
        except UnicodeEncodeError:
            return False
        return True

    return is_held
