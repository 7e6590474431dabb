"""A change as a line of JSON."""

from __future__ import annotations

from typing import Any

from brain.cli.listening.exact_text import json_text
from brain.client import Change


def json_line(change: Change[Any]) -> str:
    """Return a change as brain.v1 has it; a key without a value is left out."""
    members = {
        "op": change.op,
        "channel": change.channel,
        "key": change.key,
        "row": change.row,
        "old": change.old,
        "omitted": list(change.omitted) or None,
        "type": change.type,
        "data": change.data,
        "private": change.private or None,
        "reason": change.reason,
        "at": change.at,
        "cursor": change.cursor,
        "txid": change.txid,
        "last": change.last or None,
    }
    is_message = change.op == "message"
    return json_text(
        {
            name: value
            for name, value in members.items()
            if value is not None or (is_message and name == "data")
        }
    )
