"""What the fan-out benchmark publishes: numbered messages of one length."""

from __future__ import annotations

from dataclasses import dataclass

# Numbers of one length.
FIRST_NUMBER = 1_000_000_000

HEADER_BYTES = 4
"""Of a frame of 126 to 65,535 bytes from a server."""

DATA = '{{"text":"{padding}","number":{number}}}'
MESSAGE = '{{"type":"note","data":{data},"timestamp":"2026-02-06T01:30:00.000Z"}}'


@dataclass(frozen=True)
class Notes:
    """Messages such as Brain renders them, whose frames have `frame_bytes` each."""

    frame_bytes: int

    def data(self, number: int) -> str:
        """Return as JSON what is published, from which Brain makes the whole message."""
        bare = MESSAGE.format(data=DATA.format(padding="", number=FIRST_NUMBER))
        padding = self.frame_bytes - HEADER_BYTES - len(bare)
        return DATA.format(padding="x" * padding, number=number)

    def message(self, number: int) -> str:
        return MESSAGE.format(data=self.data(number))
