from __future__ import annotations

import pytest

from brain.doctor import clocks, http
from tests.doctor.answering import answering, response
from tests.doctor.examining import found

OFFSETS = [(0.3, "ok"), (-1.9, "ok"), (5.0, "warning"), (-5.0, "warning"), (60.0, "failure")]


@pytest.mark.parametrize(("seconds", "verdict"), OFFSETS)
def test_a_clock_that_differs_is_named(seconds: float, verdict: str) -> None:
    finding = clocks.of_offset(seconds, "the database", leeway_seconds=10.0)

    assert finding.verdict == verdict
    assert finding.facts["offset_seconds"] == seconds
    if verdict != "ok":
        assert ("ahead of" if seconds > 0 else "behind") in finding.text
        assert "chronyc" in str(finding.way_out)


async def test_the_clock_of_the_database_is_compared(core_database: str) -> None:
    finding = await found(clocks.database, database_url=core_database)

    assert finding.verdict == "ok"


async def test_the_clock_of_brain_is_compared_by_its_date() -> None:
    late = response(200, '{"status":"alive"}', date="Sun, 06 Nov 1994 08:49:37 GMT")
    without = response(200, '{"status":"alive"}')
    async with answering(late, {"/none/healthz": without}) as port:
        url = f"http://127.0.0.1:{port}"
        behind = await found(clocks.of_brain, http.http, url=url)
        unknown = await found(clocks.of_brain, http.http, url=f"{url}/none")

    assert behind.verdict == "failure"
    assert "behind" in behind.text
    assert unknown.verdict == "not checked"
