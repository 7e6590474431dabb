"""The fault game: an alert fires on what is wrong, and `brain doctor` names it and the way out."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.faults.servers import own_postgres
from tests.operating.faults import (
    COMPILER,
    EXPIRED,
    FOREIGN_ORIGIN,
    OF_ANOTHER_KEY,
    Fault,
    database_down,
    disabled_trigger,
    full_log,
    hung_worker,
    locked_table,
    open_files_used_up,
    preloaded,
    refused_token,
    slow_client,
    slow_disk,
    wrong_origin,
)
from tests.operating.prometheus import PROMETHEUS
from tests.operating.scene import Scene, watched_brain

pytestmark = [
    pytest.mark.skipif(PROMETHEUS is None, reason="there is no prometheus on this machine"),
    pytest.mark.timeout(180),
]

# What is late on a busy machine, too: the fault's own is judged, others say nothing here.
ALERTS_OF_LATENESS = frozenset(
    {
        "BrainHangs",
        "BrainFollowsLate",
        "BrainReadsSlowly",
        "BrainDiskIsSlow",
        "BrainDeliversLate",
        "BrainEventLoopLags",
        "BrainCollectionsAreLong",
    }
)
CHECKS_OF_LATENESS = frozenset(
    {
        "database.disk",
        "metrics.event_loop",
        "connection.ready",
        "clocks.database",
        "event.read",
        "event.delivered",
    }
)

FAULTS = {
    "locked table": Fault(locked_table, "BrainTableLocked", "database.locks", "pg_terminate"),
    "disabled trigger": Fault(
        disabled_trigger, "BrainTriggerMissing", "watches.triggers", "ENABLE TRIGGER"
    ),
    "wrong origin": Fault(
        wrong_origin,
        "BrainRefusesOrigin",
        "connection.origin",
        "BRAIN_ALLOWED_ORIGINS",
        ("--origin", FOREIGN_ORIGIN),
    ),
    "expired token": Fault(
        refused_token(EXPIRED),
        "BrainRefusesTokens",
        "token.times",
        "new token",
        ("--token", EXPIRED),
    ),
    "token of another key": Fault(
        refused_token(OF_ANOTHER_KEY),
        "BrainRefusesTokens",
        "token.verified",
        "BRAIN_JWT_PREVIOUS_SECRET",
        ("--token", OF_ANOTHER_KEY),
    ),
    "full log": Fault(full_log, "BrainLogIsFull", "log.retention", "transaction"),
    "slow client": Fault(
        slow_client,
        "BrainCutsSlowClients",
        "metrics.slow_clients",
        "subscribe with a filter",
        settings={"BRAIN_RING_SECONDS": "2"},
    ),
    "hung worker": Fault(
        hung_worker,
        "BrainWorkerHung",
        "metrics.workers",
        "log",
        settings={"BRAIN_WORKERS": "2", "BRAIN_WORKER_TIMEOUT_SECONDS": "2"},
    ),
    "open files used up": Fault(
        open_files_used_up,
        "BrainOpenFilesNearlyUsed",
        "host.open_files",
        "LimitNOFILE",
        settings={"BRAIN_MAX_CONNECTIONS": "100"},
    ),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_an_alert_fires_on_a_fault_and_the_doctor_names_it(
    name: str, core_database: str, tmp_path: Path
) -> None:
    fault = FAULTS[name]
    async with watched_brain(core_database, tmp_path, **fault.settings) as scene:
        await play(fault, scene)


@pytest.mark.skipif(COMPILER is None, reason="there is no C compiler on this machine")
async def test_an_alert_fires_on_a_slow_disk_and_the_doctor_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        # PostgreSQL may run as another user.
        Path(folder).chmod(0o711)
        for name, value in (await preloaded(Path(folder))).items():
            monkeypatch.setenv(name, value)
        async with own_postgres() as postgres:
            monkeypatch.undo()
            fault = Fault(slow_disk(Path(folder)), "BrainDiskIsSlow", "database.disk", "iostat")
            async with watched_brain(postgres.url, tmp_path) as scene:
                await play(fault, scene)


async def test_an_alert_fires_without_the_database_and_the_doctor_names_it(tmp_path: Path) -> None:
    async with own_postgres() as postgres, watched_brain(postgres.url, tmp_path) as scene:
        fault = Fault(
            database_down(postgres), "BrainDatabaseDown", "database.reachable", "start PostgreSQL"
        )
        await play(fault, scene)


async def play(fault: Fault, scene: Scene) -> None:
    """Make a fault of a Brain that is well, and judge what shows it."""
    assert not await scene.prometheus.firing() - ALERTS_OF_LATENESS
    before = judged(await scene.examined(), fault)
    assert not with_verdict("failure", before), before
    async with fault.make(scene):
        await scene.prometheus.fires(fault.alert)
        found = judged(await scene.examined(*fault.options), fault)
    known = [one["id"] for one in with_verdict("warning", before)]
    warnings = [one for one in with_verdict("warning", found) if one["id"] not in known]
    named = [*with_verdict("failure", found), *warnings]
    assert [one["id"] for one in named][:1] == [fault.check], named
    assert fault.way_out in named[0]["way_out"], named


def judged(document: dict[str, Any], fault: Fault) -> list[dict[str, Any]]:
    """Return the checks of `brain doctor` that a fault is judged by, however busy the machine."""
    left_out = CHECKS_OF_LATENESS - {fault.check}
    return [one for one in document["checks"] if one["id"] not in left_out]


def with_verdict(verdict: str, checks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [one for one in checks if one["verdict"] == verdict]
