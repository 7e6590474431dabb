"""Scenarios in which clients leave and come back with their cursors, while tasks change."""

from __future__ import annotations

import asyncio
from random import Random

from tests.faults.clients import Lifetime
from tests.faults.replica import Verdict
from tests.faults.scene import Report, Stage, connected, set_up

# Holds some hundred events, so that clients resume from the log as often as from the ring.
SMALL_RING = {"BRAIN_RING_BYTES": "300000"}
# Holds a dozen, so that only a client that reconnects at once resumes from the ring.
TINY_RING = {"BRAIN_RING_BYTES": "20000"}


async def two_nodes(stage: Stage, *, hops: int, clients: int, rate: float) -> Report:
    """Let each client reconnect `hops` times, at random to one of two Brains."""

    def hop(chance: Random) -> Lifetime:
        return Lifetime(chance.randrange(60), 2, chance.uniform(0, 0.02), chance.random() < 0.5)

    async with set_up(stage) as scene:
        for _ in range(2):
            await scene.serve(**SMALL_RING)
        async with scene.followed(clients, hop), scene.writing(rate):
            hoppers = scene.clients[1:]
            while min(client.greetings for client in hoppers) < hops:
                await scene.every_client_receives()
            scene.faults = sum(client.greetings for client in hoppers)
        return await scene.report()


async def resume_race(stage: Stage, *, times: int, clients: int, rate: float) -> Report:
    """Let clients receive a few messages or none, and resume at once or after a while."""

    def come_and_go(chance: Random) -> Lifetime:
        away_seconds = chance.choice((0, 0, 0, 0.01, chance.random() / 2))
        return Lifetime(chance.randrange(50), 1, away_seconds, chance.random() < 0.5)

    async with set_up(stage) as scene:
        await scene.serve(**SMALL_RING)
        async with scene.followed(clients, come_and_go), scene.writing(rate):
            racers = scene.clients[1:]
            while (done := sum(client.greetings for client in racers)) < times:
                await scene.every_client_receives()
            scene.faults = done
        return await scene.report()


async def retention_race(stage: Stage, *, times: int, clients: int, rate: float) -> Report:
    """Trim the log many times a second while clients resume from it."""

    def come_and_go(chance: Random) -> Lifetime:
        away_seconds = chance.choice((0, 0.02, chance.random() / 2, chance.random()))
        return Lifetime(chance.randrange(100), 1, away_seconds, chance.random() < 0.5)

    async with set_up(stage) as scene:
        await scene.serve(**TINY_RING)
        async with scene.followed(clients, come_and_go), scene.writing(rate):
            async with connected(scene.database) as admin:
                for _ in range(times):
                    keep = stage.chance.choice(("0 seconds", "50 ms", "200 ms", "500 ms"))
                    await admin.fetchval("SELECT brain.trim($1::text::interval)", keep)
                    scene.faults += 1
                    await asyncio.sleep(stage.chance.uniform(0, 0.06))
        resets = sum(client.replica.resets for client in scene.clients)
        if not 0 < resets < sum(client.greetings for client in scene.clients):
            # No resume met a trimmed log, or every one did: nothing raced.
            scene.verdict += Verdict(unexpected=1)
        return await scene.report(expects_resets=True)
