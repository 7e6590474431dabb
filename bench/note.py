"""The messages that the fan-out benchmark publishes: numbered, all of the same length."""

from __future__ import annotations

from dataclasses import dataclass

# From here on all numbers have the same length.
FIRST_NUMBER = 1_000_000_000

HEADER_BYTES = 4
"""Header of a frame from a server, for payloads of 126 to 65,535 bytes."""

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
        return DATA.format(padding="x" * padding, number=number)

    def message(self, number: int) -> str:
        return MESSAGE.format(data=self.data(number))
