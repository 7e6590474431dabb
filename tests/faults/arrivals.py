"""Scenarios of clients that do not finish their handshake, and of many that come and go."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from functools import partial
from math import inf
from random import Random
from time import monotonic

from tests.faults.crowd import allow_files
from tests.faults.cursors import some_at_once
from tests.faults.figures import Figure, Findings
from tests.faults.observed import LOOK_SECONDS, MEBIBYTE, ObservedNode, served
from tests.faults.scene import Stage
from tests.faults.witness import well_connected
from tests.raw_websocket import RawClient, close_frame, connected_to, handshake

HANDSHAKE = handshake("/ws")
DRIP_SECONDS = 0.4
GOOD_PAUSE_SECONDS = 0.2
WARMING_CONNECTIONS = 64
AT_ONCE = 32
CONNECTED_SECONDS = 20.0
MOST_SECOND_GROWTH_MEBIBYTES = 8.0
"""Growth in the second half of the connections, which reuses memory of the first half."""
SETTLING_SECONDS = 15.0
"""How long Brain may take to drop clients that have left."""


async def slow_handshakes(
    stage: Stage,
    *,
    sockets: int,
    handshake_timeout_seconds: float,
    limit_seconds: float,
    good_seconds: float,
) -> Findings:
    """Open sockets that send no handshake, or only its beginning, or one byte at a time."""
    allow_files(2 * sockets)
    settings = {"BRAIN_HANDSHAKE_TIMEOUT_SECONDS": str(handshake_timeout_seconds)}
    async with served(stage, settings) as node, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connected_to(node.port)) for _ in range(sockets)]
        async with asyncio.TaskGroup() as tasks:
            waiting = [
                tasks.create_task(dawdle(client, stage.chance, limit_seconds)) for client in clients
            ]
            connections = [await good_connection(node)]
            while not all(task.done() for task in waiting):
                await asyncio.sleep(GOOD_PAUSE_SECONDS)
                connections.append(await good_connection(node))
    stayed = [task.result() for task in waiting]
    return Findings(
        (
            Figure("of", sockets),
            Figure(f"left after {limit_seconds:g} s", stayed.count(inf), most=0),
            Figure("the last went after", max(stayed), "s"),
            Figure("meanwhile good clients", len(connections), least=1),
            Figure("the slowest greeted after", max(connections), "s", good_seconds),
        )
    )


async def dawdle(client: RawClient, chance: Random, patience_seconds: float) -> float:
    """Begin a handshake in one of three ways; return how long the connection lasted."""
    begun = monotonic()
    sent = chance.choice((b"", b"", HANDSHAKE[: chance.randrange(len(HANDSHAKE) - 2)]))
    rest = HANDSHAKE[len(sent) : -2] if chance.random() < 0.5 else b""
    dripping = asyncio.create_task(drip(client, sent, rest))
    try:
        async with asyncio.timeout(patience_seconds):
            while await client.receive():
                pass  # an answer may come before the end
    except TimeoutError:
        return inf
    except OSError:
        pass
    finally:
        dripping.cancel()
        await asyncio.gather(dripping, return_exceptions=True)
    return monotonic() - begun


async def drip(client: RawClient, sent: bytes, rest: bytes) -> None:
    """Send the beginning at once, and the rest a byte at a time."""
    await client.send(sent)
    for byte in rest:
        await asyncio.sleep(DRIP_SECONDS)
        await client.send(bytes([byte]))


async def good_connection(node: ObservedNode) -> float:
    """Return how long a well-behaved client waits for its greeting."""
    begun = monotonic()
    async with well_connected(node.port) as connection:
        await connection.recv()
        return monotonic() - begun


async def churn(stage: Stage, *, connections: int) -> Findings:
    """Connect often and leave, with or without a close frame; some vanish in their handshake."""
    async with served(stage) as node, well_connected(node.port) as stays:
        await stays.recv()
        await connect_often(node, stage.chance, WARMING_CONNECTIONS)
        files = await settled_files(node, inf)
        memory = [node.memory_bytes()]
        for _ in range(2):
            await connect_often(node, stage.chance, connections // 2)
            memory.append(node.memory_bytes())
        more_files = await settled_files(node, files) - files
        left = await node.clients()
    first, second = ((memory[n + 1] - memory[n]) / MEBIBYTE for n in range(2))
    return Findings(
        (
            Figure("of", connections, "connections"),
            Figure("files left open", more_files, most=0),
            Figure("clients left beside one", left - 1, most=0, least=0),
            Figure("memory grew by", first, "MiB"),
            Figure("then by", second, "MiB", MOST_SECOND_GROWTH_MEBIBYTES),
        )
    )


async def connect_often(node: ObservedNode, chance: Random, times: int) -> None:
    """Connect this many times, several clients at once."""
    await some_at_once(
        [partial(come_and_go, node.port, Random(chance.random())) for _ in range(times)], AT_ONCE
    )


async def come_and_go(port: int, chance: Random) -> None:
    async with asyncio.timeout(CONNECTED_SECONDS), connected_to(port) as client:
        match chance.choices(("polite", "rude", "lost"), (45, 45, 10))[0]:
            case "polite":
                await client.upgrade("/ws")
                await client.next_text()
                await client.send(close_frame())
                await client.read_to_the_end()
            case "rude":
                await client.upgrade("/ws")
                client.reset()
            case _:
                await client.send(HANDSHAKE[: chance.randrange(len(HANDSHAKE))])
                if chance.random() < 0.5:
                    client.reset()


async def settled_files(node: ObservedNode, most: float) -> int:
    """Wait until one client and at most `most` open files are left; return how many files."""
    begun = monotonic()
    before, files = -1, node.open_files()
    while await node.clients() > 1 or files > most or files != before:
        if monotonic() > begun + SETTLING_SECONDS:
            break
        await asyncio.sleep(LOOK_SECONDS)
        before, files = files, node.open_files()
    return files
