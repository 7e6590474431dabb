"""The messages that the fan-out benchmark publishes: numbered, all of the same length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

# From here on all numbers have the same length.
FIRST_NUMBER = 1_000_000_000

HEADER_BYTES = 4
"""Header of a frame from a server, for payloads of 126 to 65,535 bytes."""

MARK = "|"
"""Once in each note, and nowhere else in its message: what is counted where lengths differ."""

DATA = '{{"text": "{padding}", "number": {number}}}'
MESSAGE = '{{"type":"note","data":{data},"timestamp":"2026-02-06T01:30:00.000Z"}}'


@dataclass(frozen=True)
class Notes:
    """Messages as Brain renders them; each frame has `frame_bytes`."""

    frame_bytes: int

    def data(self, number: int) -> str:
        """Return the data to publish, as JSON; Brain renders the whole message from it."""
        bare = MESSAGE.format(data=DATA.format(padding="", number=FIRST_NUMBER))
        padding = self.frame_bytes - HEADER_BYTES - len(bare)
        return DATA.format(padding="x" * (padding - 1) + MARK, number=number)

    def message(self, number: int) -> str:
        return MESSAGE.format(data=self.data(number))

    def compact(self, number: int) -> Any:
        """Return a message that is as long as the others if it is printed without spaces."""
        text = self.message(number)
        message = orjson.loads(text)
        spaces = len(text) - len(orjson.dumps(message))
        message["data"]["text"] = "x" * spaces + message["data"]["text"]
        return message
