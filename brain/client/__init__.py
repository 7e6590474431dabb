"""
The client for Python programs: `async with Brain(url) as brain`.

Frames of brain.v1 come in, over a WebSocket or as server-sent events; changes of rows go out. It
imports no other room: what it knows of the server is docs/protocol.md.
"""

from brain.client.brain import Brain
from brain.client.change import Change, Op
from brain.client.collection import Collection
from brain.client.errors import (
    BrainClientError,
    Closed,
    ConnectionLost,
    CursorFileError,
    InvalidRow,
    InvalidUrl,
    NeedsWebSocket,
    Refused,
)
from brain.client.status import Status
from brain.client.subscription import Subscription

__all__ = [
    "Brain",
    "BrainClientError",
    "Change",
    "Closed",
    "Collection",
    "ConnectionLost",
    "CursorFileError",
    "InvalidRow",
    "InvalidUrl",
    "NeedsWebSocket",
    "Op",
    "Refused",
    "Status",
    "Subscription",
]
