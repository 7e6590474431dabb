"""
The checks of the log detect wrong versions of it (mutants).

Two more mutants, nodes that listen too late or park without waiting, are detected in
tests/listener/test_notification_interleavings.py (`ListensAfterItsLastRead`, `SleepsAtOnce`).
"""

from __future__ import annotations

import pytest

from tests.database.history import Violation
from tests.database.mutants import MUTANTS, Mutant
from tests.database.scenes import SCENES, Scene
from tests.database.stage import staged
from tests.database.workload import Workload

ROUNDS = 5

# Mutants that a random workload detects, without stepping the sessions.
NOTICED_AT_RANDOM = [
    "events are ordered by transaction",
    "the newest events are ordered by transaction",
    "the newest events lack the late transactions",
    "the newest events all belong to the newest tick",
    "in the middle of a tick events are ordered by transaction",
    "events are read after the highest id",
    "sessions draw ids in advance",
    "a batch lacks the late transactions",
    "the middle of a tick lacks the late transactions",
    "a batch has what is committed by now",
    "the middle of a tick has what is committed by now",
    "the tick of a snapshot is cut before it",
    "the tick of a snapshot is cut after it",
]


@pytest.mark.postgres_versions
@pytest.mark.parametrize("cuts_apart", [False, True], ids=["at once", "tick and read apart"])
@pytest.mark.parametrize("scene", SCENES)
async def test_the_log_holds_in_every_scene(database: str, scene: Scene, cuts_apart: bool) -> None:
    async with staged(database, cuts_apart=cuts_apart) as stage:
        await scene(stage)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
async def test_a_wrong_log_is_found_in_its_scene(database: str, mutant: Mutant) -> None:
    async with mutant.staged(database) as stage:
        with pytest.raises(Violation) as violation:
            await mutant.scene(stage)
    print(f"{mutant.name}: {violation.value}")


def test_every_scene_has_a_log_that_fails_in_it() -> None:
    assert {mutant.scene for mutant in MUTANTS} == set(SCENES)


@pytest.mark.parametrize("seed", range(ROUNDS))
@pytest.mark.parametrize("trims", [False, True], ids=["untrimmed", "trimmed"])
async def test_the_log_is_right_at_random(database: str, trims: bool, seed: int) -> None:
    async with staged(database, cuts_apart=seed % 2 == 1) as stage:
        one, other, passing = await Workload(stage, f"seed {seed}").run(trims=trims)

    assert one.events_read and other.events_read
    assert bool(passing.resyncs) == trims


@pytest.mark.parametrize("name", NOTICED_AT_RANDOM)
async def test_a_wrong_log_is_found_at_random(database: str, name: str) -> None:
    (mutant,) = [mutant for mutant in MUTANTS if mutant.name == name]
    async with mutant.staged(database) as stage:
        with pytest.raises(Violation) as violation:
            for seed in range(ROUNDS):
                await Workload(stage, f"seed {seed}").run()
    print(f"{name}, seed {seed}: {violation.value}")
