"""
The frames that a client sends, without I/O.

Source: RFC 6455, sections 5.2 (framing), 5.4 (fragments), 5.5 (control frames) and 7.4 (close
codes).
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from brain.close_codes import CloseCode

try:
    from websockets.speedups import apply_mask  # in C
except ImportError:
    from websockets.utils import apply_mask

# Of the first byte: the last fragment, and bits of extensions; of the second: masked.
LAST, RESERVED, OPCODE, MASKED = 0x80, 0x70, 0x0F, 0x80
# In place of a length: it follows in two bytes, or in eight.
LONG, LONGER = 126, 127
MASK_BYTES = 4
MOST_CONTROL_BYTES = 125

# Those that a peer may send, of the codes below 3000.
CLOSE_CODES = frozenset({*range(1000, 1004), *range(1007, 1015)})
FIRST_REGISTERED_CODE, LAST_PRIVATE_CODE = 3000, 4999


class Opcode(IntEnum):
    """What a frame is: RFC 6455, section 5.2."""

    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10

    @property
    def is_control(self) -> bool:
        return self >= Opcode.CLOSE


OPCODES = {int(opcode): opcode for opcode in Opcode}


class ClientFrame(NamedTuple):
    opcode: Opcode
    is_last: bool
    """Of a message, which may be in several fragments."""
    payload: bytes


class WrongFrame(Exception):
    """The client has sent what the protocol does not allow; `code` closes the connection."""

    def __init__(self, code: CloseCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code


def next_frame(
    received: bytes | bytearray, start: int, most_bytes: int
) -> tuple[ClientFrame, int] | None:
    """
    Return the frame that begins at `start`, and where it ends; None while it is incomplete.

    Raises `WrongFrame`, as soon as the head says so: a payload of more than `most_bytes` is not
    waited for.
    """
    if len(received) < start + 2:
        return None
    opcode, is_last, size = head(received[start], received[start + 1])
    mask_at = start + 2
    if size >= LONG:
        size_at, mask_at = mask_at, mask_at + (2 if size == LONG else 8)
        if len(received) < mask_at:
            return None
        size = int.from_bytes(received[size_at:mask_at])
    if size > most_bytes and not opcode.is_control:
        raise WrongFrame(CloseCode.MESSAGE_TOO_BIG, "the message is too long")
    begin = mask_at + MASK_BYTES
    end = begin + size
    if len(received) < end:
        return None
    payload = apply_mask(received[begin:end], received[mask_at:begin])
    return ClientFrame(opcode, is_last, payload), end


def head(first: int, second: int) -> tuple[Opcode, bool, int]:
    """
    Return what the first two bytes of a frame say: opcode, whether it is the last one, length.

    Raises `WrongFrame`.
    """
    opcode = OPCODES.get(first & OPCODE)
    if opcode is None:
        raise WrongFrame(CloseCode.PROTOCOL_ERROR, "invalid opcode")
    if first & RESERVED:
        raise WrongFrame(CloseCode.PROTOCOL_ERROR, "reserved bits must be 0")
    if not second & MASKED:
        raise WrongFrame(CloseCode.PROTOCOL_ERROR, "incorrect masking")
    is_last, size = bool(first & LAST), second & ~MASKED
    if opcode.is_control and not is_last:
        raise WrongFrame(CloseCode.PROTOCOL_ERROR, "fragmented control frame")
    if opcode.is_control and size > MOST_CONTROL_BYTES:
        raise WrongFrame(CloseCode.PROTOCOL_ERROR, "control frame too long")
    return opcode, is_last, size


def check_close(payload: bytes) -> None:
    """Raise `WrongFrame` unless a close frame may have this payload."""
    if not payload:
        return
    try:
        payload[2:].decode()
    except UnicodeDecodeError:
        raise WrongFrame(CloseCode.INVALID_TEXT, "not UTF-8") from None
    code = int.from_bytes(payload[:2])
    is_valid = code in CLOSE_CODES or FIRST_REGISTERED_CODE <= code <= LAST_PRIVATE_CODE
    if len(payload) == 1 or not is_valid:
        raise WrongFrame(CloseCode.PROTOCOL_ERROR, "invalid status code")
