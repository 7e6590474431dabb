"""The state of a feed, and the message that carries it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from brain.message.wire_model import WireModel


@dataclass(frozen=True, slots=True)
class FeedState:
    """The result of a feed's query."""

    text: str
    """JSON."""
    etag: str
    """Equal for states that count as the same: the ignored keys make no difference."""


class FeedUpdate(WireModel):
    """The whole state of a feed; sent at once, and again whenever it has changed."""

    type: Annotated[str, Field(pattern="_update$")]
    """The name of the feed, with `_` for `-`, and `_update`."""
    data: Any
    """What the query of the feed returns."""


def update_type(feed: str) -> str:
    """Return the type of a feed's messages: `adw_state_update` for `adw-state`."""
    return f"{feed.replace('-', '_')}_update"


def update_message(feed: str, state: FeedState) -> str:
    """Return the message that carries a state."""
    # The name of a feed needs no escaping: see brain.define_feed.
    return f'{{"type":"{update_type(feed)}","data":{state.text}}}'
