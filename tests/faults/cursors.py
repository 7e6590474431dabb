"""Scenarios of clients that resume from an invalid cursor, or from a snapshot."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from functools import partial
from random import Random

import orjson
from httpx2 import AsyncClient
from websockets.exceptions import WebSocketException

from brain.message.cursor import END_OF_TICK, Cursor
from tests.faults.clients import SECRET_BYTES, Client, Lifetime
from tests.faults.coming_back import SMALL_RING
from tests.faults.passing import Loaded, Passing, verdict_on_snapshots
from tests.faults.scene import Report, ScenarioFailed, Scene, Stage, connected, set_up
from tests.faults.servers import Node

CONNECTED_SECONDS = 20.0
ATTEMPTS = 4
"""How often a client connects before it counts as never served."""
NEARLY_CURSORS = ("1.2", "1.2.3.4", "-1.-1.-1", "1..3", " 1.2.3", "1.2.3\n", "+1.2.3", "1_0.2.3")
LETTERS = "0123456789.-+eE_ \t\n\0'\"%&=#?/\\;{}[]xäß\u0661\uff12☃\U0001f9e0"


async def cursors(stage: Stage, *, each: int, at_once: int, rate: float) -> Report:
    """Resume from cursors that are too old, of another history, from the future, or malformed."""
    async with set_up(stage) as scene:
        node = await scene.serve()
        async with scene.writing(rate):
            old = await collected(node, each)
            await restart(node)
            await collected(node, 20)  # so that later ticks exist
        await forget_everything(scene, node)
        async with scene.followed(1), scene.writing(rate):
            bad = [*old, *forged(each, scene.clients[0].cursor, stage.chance)]
            stage.chance.shuffle(bad)
            clients = [
                Client([node.port], Passing(), scene.new_chance(), cursor=cursor) for cursor in bad
            ]
            await some_at_once([partial(come_twice, client) for client in clients], at_once)
        order = await scene.true_order()
        for client in clients:
            scene.verdict += client.replica.verdict_after_reset(order)
            scene.deliveries += len(client.replica.facts)
            scene.resets += len(client.replica.reasons)
        scene.faults = len(bad)
        return await scene.report()


async def snapshot_race(stage: Stage, *, times: int, at_once: int, rate: float) -> Report:
    """Load snapshots of all tasks and resume from their cursors, while tasks change."""
    async with set_up(stage) as scene:
        node = await scene.serve(**SMALL_RING)
        loaded: list[Loaded] = []
        async with (
            scene.followed(1),
            scene.writing(rate),
            AsyncClient(base_url=f"http://127.0.0.1:{node.port}", trust_env=False) as http,
        ):
            chances = [scene.new_chance() for _ in range(times)]
            await some_at_once(
                [partial(load_and_follow, http, node, loaded, chance) for chance in chances],
                at_once,
            )
        scene.verdict += verdict_on_snapshots(loaded, await scene.true_order())
        scene.deliveries = sum(len(each.facts) for each in loaded)
        scene.resets = sum(len(each.reasons) for each in loaded)
        scene.faults = len(loaded)
        return await scene.report()


async def load_and_follow(
    http: AsyncClient, node: Node, loaded: list[Loaded], chance: Random
) -> None:
    """Load a snapshot, receive a few messages after its cursor, and add both to `loaded`."""
    response = await http.get("/api/brain/snapshot/tasks")
    if response.status_code != 200:
        raise ScenarioFailed(f"{response.request.url.path} answered {response.status_code}")
    snapshot = orjson.loads(response.content)
    rows = {row["id"]: (int(row["progress"]), row["agent"]) for row in snapshot["rows"]}
    replica = Loaded(rows=rows)
    if SECRET_BYTES in response.content:
        replica.note_leak()
    await asyncio.sleep(chance.choice((0, 0, chance.random() / 5)))
    client = Client([node.port], replica, chance, cursor=snapshot["cursor"])
    loaded.append(replica)
    for _ in range(ATTEMPTS):
        with suppress(OSError, WebSocketException):
            await client.connect_for(
                Lifetime(chance.randint(1, 5), CONNECTED_SECONDS, 0, is_polite=False)
            )
        if replica.facts:
            return


async def come_twice(client: Client[Passing]) -> None:
    """Connect with a bad cursor for one message, and again with the good one that it received."""
    for _ in range(ATTEMPTS):
        with suppress(OSError, WebSocketException):
            await client.connect_for(Lifetime(1, CONNECTED_SECONDS, 0, is_polite=False))
        if len(client.replica.facts) == 2:
            return


async def some_at_once(work: list[Callable[[], Awaitable[None]]], at_once: int) -> None:
    """Do all the work, `at_once` pieces at a time."""
    todo = iter(work)

    async def worker() -> None:
        for piece in todo:
            await piece()

    async with asyncio.TaskGroup() as tasks:
        for _ in range(at_once):
            tasks.create_task(worker())


async def forget_everything(scene: Scene, node: Node) -> None:
    """Empty the log, and the ring by a restart."""
    await node.end()
    async with connected(scene.database) as connection:
        await connection.execute("SELECT brain.trim('0 seconds')")
    await node.start()


async def restart(node: Node) -> None:
    await node.end()
    await node.start()


async def collected(node: Node, count: int) -> list[str]:
    """Return the cursors of `count` messages."""
    client = Client([node.port], Passing(), Random())
    found = []
    for _ in range(count):
        await client.connect_for(Lifetime(1, CONNECTED_SECONDS, 0, is_polite=False))
        found.append(client.cursor)
    return found


def forged(count: int, genuine: str, chance: Random) -> Iterator[str]:
    """Yield invalid cursors, `count` of each kind, made from a genuine one."""
    newest = Cursor.parse(genuine)
    for _ in range(count):
        event = chance.choice((END_OF_TICK, 0, chance.randrange(10**6)))
        tick = newest.tick + chance.randint(-newest.tick, 20)
        yield str(Cursor(tick, (newest.nonce + chance.randint(1, 2**52)) % 2**53, event))
        nonce = chance.choice((newest.nonce, chance.randrange(2**53)))
        yield str(Cursor(newest.tick + 10 ** chance.randint(5, 15), nonce, event))
        yield garbage(genuine, chance)


def garbage(genuine: str, chance: Random) -> str:
    """Return a text that is not a cursor, but may resemble one."""
    match chance.randrange(4):
        case 0:
            return chance.choice(NEARLY_CURSORS)
        case 1:
            place = chance.randrange(len(genuine) + 1)
            return genuine[:place] + chance.choice(LETTERS[10:]) + genuine[place:]
        case 2:
            return f"{10 ** chance.randint(19, 400)}.1.1"
        case _:
            return "x" + "".join(chance.choices(LETTERS, k=chance.randrange(300)))
