"""A scenario of clients that send broken frames and hostile texts."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import pairwise
from random import Random

import orjson

from tests.faults.cursors import some_at_once
from tests.faults.figures import Figure, Findings
from tests.faults.floods import DOCUMENTED
from tests.faults.garbage import bad_frame, good_frame, hostile_text
from tests.faults.load import loaded
from tests.faults.observed import ObservedNode, served, watched_memory
from tests.faults.scene import Stage
from tests.faults.servers import is_ready
from tests.faults.witness import well_connected, witnessed
from tests.raw_websocket import (
    RawClient,
    client_frame,
    close_code,
    close_frame,
    split_frames,
    upgraded,
)

AT_ONCE = 20
MOST_IN_A_ROW = 4
"""How many bad frames a connection sends; few connections survive the first one."""
TALKERS = 10
ANSWER_SECONDS = 20.0
RATE = 20
GOOD_SECONDS = 5.0
TALKATIVE = {"BRAIN_MESSAGES_PER_SECOND": "1000000"}
GREETING, ECHO = b'{"type":"connected",', b'{"type":"echo",'


class Tally:
    """Counts how the connections ended, and which texts were echoed."""

    def __init__(self) -> None:
        self._codes: Counter[int] = Counter()
        self._foreign = 0
        self.hanging = 0
        """Connections that were still open although both sides had ended them."""
        self.echoed = 0
        self.distorted = 0
        """Echoes that differ from what was sent."""

    def note_end(self, code: int | None, sent: bytes) -> None:
        """Count the end of a connection over which `sent` was sent."""
        self._codes[code or 0] += 1
        if code is not None and code not in DOCUMENTED:
            # The reply to a close frame repeats its code.
            self._foreign += code not in map(close_code, split_frames(sent)[0])

    def figures(self) -> Iterator[Figure]:
        for code, count in sorted(self._codes.items()):
            yield Figure(f"closed with {code}" if code else "closed without a code", count)
        yield Figure("with an undocumented code", self._foreign, most=0)
        yield Figure("never closed", self.hanging, most=0)
        yield Figure("texts echoed", self.echoed, least=1)
        yield Figure("distorted", self.distorted, most=0)


async def nonsense(stage: Stage, *, frames: int, texts: int) -> Findings:
    """Send broken frames and hostile texts by the thousand, while a good client listens."""
    tally, chance = Tally(), stage.chance
    async with (
        served(stage, TALKATIVE) as node,
        loaded(node.database) as load,
        witnessed(node.port) as witness,
        watched_memory(node) as memory,
        load.flowing(RATE),
    ):
        framing = [
            partial(send_frames, node.port, Random(chance.random()), tally, count)
            for count in counts(frames, chance)
        ]
        texting = [
            partial(send_texts, node.port, Random(chance.random()), tally, texts // TALKERS)
            for _ in range(TALKERS)
        ]
        await some_at_once([*texting, *framing], AT_ONCE)
        return Findings(
            (
                Figure("bad frames", frames),
                *tally.figures(),
                *await health(node),
                memory.growth(),
                *witness.figures(GOOD_SECONDS),
            )
        )


async def health(node: ObservedNode) -> Sequence[Figure]:
    """Check that Brain is ready, answers, and has logged no error."""
    is_well = await is_ready(node.port) and await is_answered(node)
    complaints = node.complaints()
    first = f" ({complaints[0]})" if complaints else ""
    return (
        Figure("Brain is well", is_well, least=1),
        Figure(f"complaints in its log{first}", len(complaints), most=0),
    )


def counts(total: int, chance: Random) -> Iterator[int]:
    """Yield the number of frames that each connection sends."""
    while total:
        count = min(total, chance.randint(1, MOST_IN_A_ROW))
        total -= count
        yield count


async def send_frames(port: int, chance: Random, tally: Tally, count: int) -> None:
    """Send bad frames, and good ones between them, in pieces; then a close frame, and read."""
    sent = b""
    for _ in range(count):
        sent += bad_frame(chance)
        if chance.random() < 0.3:
            sent += good_frame(chance)
    sent += close_frame()
    async with upgraded(port) as client:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await send_in_pieces(client, sent, chance)
                await client.read_to_the_end()
        except TimeoutError:
            tally.hanging += 1
        else:
            tally.note_end(client.close_code, sent)


async def send_in_pieces(client: RawClient, sent: bytes, chance: Random) -> None:
    """Send bytes in a few pieces, cut at random places, and end the sending."""
    places = sorted(chance.choices(range(len(sent) + 1), k=chance.randrange(4)))
    with suppress(ConnectionError):  # it may be closed in the middle
        for start, end in pairwise((0, *places, len(sent))):
            await client.send(sent[start:end])
            await asyncio.sleep(0)
    client.end_sending()


async def send_texts(port: int, chance: Random, tally: Tally, count: int) -> None:
    """Send hostile texts and read the replies; reconnect whenever one closed the connection."""
    texts = [hostile_text(chance) for _ in range(count)]
    while texts:
        async with upgraded(port) as client:
            while texts and await is_echoed(client, texts.pop(), chance, tally):
                pass


async def is_echoed(client: RawClient, text: str, chance: Random, tally: Tally) -> bool:
    """Send a text and take the reply; return False if the connection was closed instead."""
    sent = client_frame(text.encode(), mask=chance.randbytes(4))
    async with asyncio.timeout(ANSWER_SECONDS):
        await client.send(sent)
        answer = await client.next_text()
        if answer is not None and answer.startswith(GREETING):
            answer = await client.next_text()
    if answer is None:
        tally.note_end(client.close_code, sent)
        return False
    if echoes(answer, text):
        tally.echoed += 1
    else:
        tally.distorted += 1
    return True


def echoes(answer: bytes, text: str) -> bool:
    """Return True if a reply echoes a text, as its message or verbatim."""
    if not answer.startswith(ECHO):
        return False
    with suppress(orjson.JSONDecodeError):  # one level deeper than the deepest that can be parsed
        if orjson.loads(answer)["data"] == {"message": text}:
            return True
    return text.startswith("{") and text.encode() in answer


async def is_answered(node: ObservedNode) -> bool:
    """Return True if a well-behaved client is greeted and answered."""
    async with well_connected(node.port) as connection:
        await connection.recv()
        await connection.send('{"a": 1}')
        answer = await connection.recv(decode=False)
        return echoes(answer, '{"a": 1}')
