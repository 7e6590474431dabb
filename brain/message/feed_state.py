"""The whole state of a feed, and how its clients are told."""

from __future__ import annotations

from dataclasses import dataclass

from brain.message.frames import framed


@dataclass(frozen=True, slots=True)
class FeedState:
    """What a feed's query answered."""

    text: str
    """JSON."""
    mark: str
    """The same for states that count as the same."""


def update_type(feed: str) -> str:
    """Return what the messages of a feed are called: `adw_state_update` for `adw-state`."""
    return f"{feed.replace('-', '_')}_update"


def update_frame(feed: str, state: FeedState) -> bytes:
    """Return the message that tells a state, as a WebSocket frame."""
    # A feed's name needs no escaping: see brain.define_feed.
    return framed(f'{{"type":"{update_type(feed)}","data":{state.text}}}')
