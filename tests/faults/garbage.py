"""Invalid input: broken frames, and unexpected JSON."""

from __future__ import annotations

import struct
from random import Random

from tests.raw_websocket import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, client_frame

RESERVED = (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)
CODES = (0, 999, 1000, 1001, 1004, 1005, 1006, 1015, 1016, 2999, 3000, 4999, 5000, 65535)
NOT_UTF8 = (b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"a\x80")
HUGE = (65537, 2**31, 2**62, 2**63, 2**64 - 1)
"""Lengths in a header, without a payload of that length."""

LETTERS = "ab 0\t\n\0\x1b\"'\\/\u202e\u2028ß☃\U0001f9e0\ufffe"
ATOMS = (
    *("null", "true", "-0", "1e400", "-1e-400", "NaN", "-Infinity", "1.", "01", "9" * 5000),
    *('"\\ud800"', '"\\udc00\\ud800"', '"\\u0000"', '"\\x"', '"', "'a'", "\ufeff{}", "//", ""),
)
DEPTHS = (1, 20, 1023, 1024, 1025, 30_000)


def bad_frame(chance: Random) -> bytes:
    """Return a frame, or a few, with something wrong; some are just within the rules."""
    kind = chance.choice((flipped, announced, misplaced, unfinished, ended, unreadable, noise))
    return kind(chance)


def good_frame(chance: Random) -> bytes:
    """Return a valid frame of a client."""
    opcode = chance.choice((TEXT, TEXT, TEXT, PING, PONG, BINARY))
    return client_frame(
        b'{"number": %d}' % chance.randrange(10**9), opcode, mask=chance.randbytes(4)
    )


def flipped(chance: Random) -> bytes:
    """Return a frame with flipped bits in its length, opcode, mask or payload."""
    frame = bytearray(good_frame(chance))
    for _ in range(chance.randint(1, 4)):
        # Most often near the beginning, where most can go wrong.
        place = chance.randrange(chance.choice((2, 6, len(frame))))
        frame[place] ^= 1 << chance.randrange(8)
    return bytes(frame)


def announced(chance: Random) -> bytes:
    """Return a frame whose length is wrong, or encoded in more bytes than it needs."""
    head = bytes([0x80 | chance.choice((TEXT, BINARY, PING, CLOSE))])
    match chance.randrange(3):
        case 0:
            length = struct.pack("!BQ", 0xFF, chance.choice(HUGE))
        case 1:
            length = struct.pack("!BH", 0xFE, chance.randrange(126))
        case _:
            length = struct.pack("!BQ", 0xFF, chance.randrange(65536))
    return head + length + chance.randbytes(chance.randrange(200))


def misplaced(chance: Random) -> bytes:
    """Return a frame whose opcode, position or form is not allowed."""
    mask = chance.randbytes(4)
    match chance.randrange(6):
        case 0:
            return client_frame(b"{}", chance.choice(RESERVED), mask=mask)
        case 1:
            return client_frame(b"{}", CONTINUATION, mask=mask)
        case 2:
            return client_frame(
                b"{}", chance.choice((PING, PONG, CLOSE)), is_final=False, mask=mask
            )
        case 3:
            return client_frame(
                bytes(chance.choice((126, 70_000))), chance.choice((PING, PONG, CLOSE))
            )
        case 4:  # a message within another
            return client_frame(b"{", is_final=False) + client_frame(
                b"{}", chance.choice((TEXT, BINARY))
            )
        case _:  # without a mask
            return b"\x81\x02{}"


def unfinished(chance: Random) -> bytes:
    """Return a truncated frame, or a message without its final fragment."""
    frame = good_frame(chance)
    if chance.random() < 0.5:
        return frame[: chance.randrange(len(frame))]
    parts = (client_frame(b"[", CONTINUATION, is_final=False) for _ in range(chance.randrange(200)))
    return client_frame(b"[", is_final=False) + b"".join(parts)


def ended(chance: Random) -> bytes:
    """Return a close frame with any code and reason, or with half a code."""
    reason = chance.choice((b"", b"enough", chance.choice(NOT_UTF8), bytes(124)))
    code = struct.pack("!H", chance.choice(CODES))
    sent = chance.choice((b"", code[:1], code + reason, code + reason))
    return client_frame(sent, CLOSE, mask=chance.randbytes(4))


def unreadable(chance: Random) -> bytes:
    """Return a message that is not UTF-8, in one fragment or two."""
    payload, mask = b'{"a": "' + chance.choice(NOT_UTF8) + b'"}', chance.randbytes(4)
    middle = chance.randrange(len(payload))
    if chance.random() < 0.5:
        return client_frame(payload, mask=mask)
    first = client_frame(payload[:middle], is_final=False, mask=mask)
    return first + client_frame(payload[middle:], CONTINUATION, mask=mask)


def noise(chance: Random) -> bytes:
    return chance.randbytes(chance.randrange(1, 300))


def hostile_text(chance: Random) -> str:
    """Return JSON, or nearly JSON, that may break a parser."""
    atom = chance.choice(ATOMS)
    match chance.randrange(6):
        case 0:
            return atom
        case 1:
            return f'{{"type": {atom}, "data": {atom}, "type": {atom}}}'
        case 2:
            opening, closing = chance.choice((("[", "]"), ('{"a":', "}")))
            depth = chance.choice(DEPTHS) // len(opening)
            return opening * depth + atom + closing * chance.choice((depth, depth, depth - 1))
        case 3:
            return "{" + f'"{"".join(chance.choices(LETTERS, k=chance.randrange(40)))}": 1' + "}"
        case 4:
            whole = f'{{"a": [1, {atom}, "b"], "c": {{"d": null}}}}'
            return whole[: chance.randrange(len(whole))]
        case _:
            return "".join(chance.choices(LETTERS, k=chance.choice((1, 100, 20_000))))
