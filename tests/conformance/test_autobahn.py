from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.autobahn import SHORT, failures, find_suite, run_cases, summary


@pytest.mark.timeout(300)
async def test_the_short_set_of_the_autobahn_suite_passes(tmp_path: Path) -> None:
    suite = find_suite()
    if suite is None:
        pytest.skip("AUTOBAHN does not name the test suite, or there is no python2.7")
    results = await run_cases(suite, SHORT, tmp_path)

    assert len(results) > 240
    assert not failures(results), summary(results)
