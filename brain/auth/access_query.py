"""What the database is asked of the claims of a token."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import orjson


class AccessQuery(NamedTuple):
    """Which of the channels, or of their rows, a client with these claims may read."""

    claims: str
    """As JSON."""
    channels: frozenset[str]


def access_query(claims: Mapping[str, Any], channels: Iterable[str]) -> AccessQuery:
    """Return the query, the same for equal claims; `TypeError`: an integer needs over 64 bits."""
    text = orjson.dumps(dict(claims), option=orjson.OPT_SORT_KEYS).decode()
    return AccessQuery(text, frozenset(channels))
