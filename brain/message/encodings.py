"""The encodings of this process: one for each wire format and kind of transport."""

from __future__ import annotations

from functools import lru_cache

from brain.message.rendering import Encoding, Framing
from brain.message.subscription_encoding import SubscriptionEncoding
from brain.message.v1_format import SNAPSHOT
from brain.message.wire_format import SubscriptionFormat, WireFormat
from brain.problems import Problems


@lru_cache(maxsize=256)
def encoding_of(
    wire_format: WireFormat, framing: Framing, problems: Problems | None = None
) -> Encoding:
    """Return the one encoding for all clients with this format on this kind of transport."""
    if isinstance(wire_format, SubscriptionFormat):
        return SubscriptionEncoding(wire_format, framing, problems or Problems())
    return Encoding(wire_format, framing, problems or Problems())


@lru_cache(maxsize=256)
def page_encoding_of(framing: Framing, problems: Problems | None = None) -> SubscriptionEncoding:
    """Return the one encoding for clients of brain.v1 that are sent the rows of a table."""
    return SubscriptionEncoding(SNAPSHOT, framing, problems or Problems())
