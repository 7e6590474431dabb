"""Fetches a JSON Web Key Set, of bounded size and in bounded time (RFC 7517, section 5)."""

from __future__ import annotations

import asyncio
import json
import threading
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar
from urllib.error import HTTPError

import jwt

MOST_KEY_SET_BYTES = 1024 * 1024
PIECE_BYTES = 65536

Result = TypeVar("Result")


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """Makes a redirect an error: it could lead to where others can replace the answers."""

    def redirect_request(self, *_: Any) -> None:
        return None


def fetch_key_set(url: str, seconds: float) -> dict[str, jwt.PyJWK]:
    """
    Return the keys at `url` that verify signatures, by their ids; it blocks.

    `seconds` is how long the server may be silent, and how long its whole answer may take. Raises
    `OSError`, `http.client.HTTPException` and `ValueError`.
    """
    until = time.monotonic() + seconds
    document = bytearray()
    try:
        with urllib.request.build_opener(NoRedirect).open(url, timeout=seconds) as response:
            while piece := response.read1(PIECE_BYTES):
                document += piece
                if len(document) > MOST_KEY_SET_BYTES:
                    raise ValueError(f"the key set has more than {MOST_KEY_SET_BYTES} bytes")
                if time.monotonic() > until:
                    raise TimeoutError(f"the key set did not come within {seconds:g} s")
    except HTTPError as error:
        error.close()
        raise
    return keys_in(bytes(document))


def keys_in(document: bytes) -> dict[str, jwt.PyJWK]:
    """Return the usable keys of a key set, by their ids. Raises `ValueError` if it is none."""
    try:
        key_set = json.loads(document)
    except RecursionError as error:
        raise ValueError("the JSON is nested too deeply") from error
    members = key_set.get("keys") if isinstance(key_set, dict) else None
    if not isinstance(members, list):
        raise ValueError("this is no key set: it has no list of keys")
    found = [key for member in members if (key := usable_key(member)) is not None]
    return {key.key_id: key for key in found if key.key_id}


def usable_key(member: Any) -> jwt.PyJWK | None:
    """Return a key for signatures; None for any other, which the RFC says to ignore."""
    try:
        key = jwt.PyJWK(member)
    # All but the first: PyJWT raises them for members of another type.
    except (jwt.PyJWTError, ValueError, TypeError, AttributeError, KeyError):
        return None
    is_id = isinstance(key.key_id, str)
    return key if is_id and key.public_key_use in ("sig", None) else None


def in_thread(work: Callable[[], Result]) -> tuple[threading.Thread, asyncio.Future[Result]]:
    """
    Start `work` in a thread of its own; return it, and what will have the result.

    The threads of an executor would keep the process from ending for as long as they run.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Result] = loop.create_future()

    def settle(put: Callable[[Any], None], outcome: Any) -> None:
        if not future.done():  # no caller waits any more
            put(outcome)

    def run() -> None:
        put: Callable[[Any], None] = future.set_result
        outcome: Any
        try:
            outcome = work()
        except Exception as error:
            put, outcome = future.set_exception, error
        with suppress(RuntimeError):  # the event loop has been closed
            loop.call_soon_threadsafe(settle, put, outcome)

    thread = threading.Thread(target=run, name="keys of tokens", daemon=True)
    thread.start()
    return thread, future
