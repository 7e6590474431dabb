from __future__ import annotations

import asyncio
import json

from brain.doctor.check import Check, check
from brain.doctor.examination import Examination
from brain.doctor.finding import Finding, NotChecked, failure, ok, warning
from brain.doctor.report import COLUMNS, json_of, text_of
from brain.doctor.runner import Result, first_cause, run
from tests.doctor.examining import request


def of(id: str, finding: Finding) -> Check:
    """Return a check that finds this."""

    @check(id)
    async def answer(_: Examination) -> Finding:
        return finding

    return answer


@check("test.crash")
async def crash(_: Examination) -> Finding:
    raise ZeroDivisionError("nothing is divided by zero")


@check("test.broken_link")
async def broken_link(_: Examination) -> Finding:
    raise ConnectionResetError("reset by peer")


@check("test.endless", most_seconds=0.05)
async def endless(_: Examination) -> Finding:
    await asyncio.Event().wait()
    raise AssertionError


@check("test.lacking")
async def lacking(_: Examination) -> Finding:
    raise NotChecked("there is no token", "pass --token-file")


FINE = of("test.fine", ok("all is well"))
DUBIOUS = of("test.dubious", warning("it is large", "make it smaller"))
BROKEN = of("test.broken", failure("it is broken", "mend it", ["twice"]))


async def found(*checks: Check) -> list[Result]:
    return await run(request(), checks)


async def test_a_check_that_crashes_is_a_failure_of_its_own_and_not_the_end() -> None:
    crashed, fine = await found(crash, FINE)

    assert crashed.finding.verdict == "failure"
    assert "ZeroDivisionError: nothing is divided by zero" in crashed.finding.text
    assert fine.finding.verdict == "ok"


async def test_a_socket_that_breaks_is_not_taken_for_the_databases() -> None:
    (result,) = await found(broken_link)

    assert result.finding.verdict == "failure"
    assert "a connection broke" in result.finding.text
    assert "database" not in result.finding.text


async def test_a_check_that_does_not_end_is_a_failure_and_not_the_end() -> None:
    late, fine = await found(endless, FINE)

    assert (late.finding.verdict, fine.finding.verdict) == ("failure", "ok")
    assert "no answer within 0.05 s" in late.finding.text


async def test_what_is_left_when_the_time_is_used_up_is_not_checked() -> None:
    (result,) = await run(request(), [FINE], most_seconds=0)

    assert result.finding.verdict == "not checked"


async def test_the_first_failure_is_the_cause_and_a_warning_only_without_one() -> None:
    assert first_cause(await found(FINE, lacking)) is None
    warned = first_cause(await found(FINE, DUBIOUS))
    failed = first_cause(await found(DUBIOUS, BROKEN, crash))

    assert warned is not None and warned.id == "test.dubious"
    assert failed is not None and failed.id == "test.broken"


async def test_the_text_ends_with_the_verdict_and_the_way_out() -> None:
    text = text_of(await found(FINE, DUBIOUS, BROKEN, lacking))

    assert "Verdict: failure: it is broken (test.broken)\nWay out: mend it\n" in text
    assert "1 failure, 1 warning, 1 ok, not checked 1." in text
    assert "there is no token: pass --token-file\n    test.lacking" in text
    assert "- twice" in text


async def test_the_text_of_a_sound_brain_says_that_nothing_is_wrong() -> None:
    assert "Verdict: ok. 1 check found nothing wrong" in text_of(await found(FINE))


async def test_lines_of_text_have_at_most_the_columns_of_a_terminal() -> None:
    long = of("test.long", failure("word " * 100, "command " * 50, ["detail " * 50]))

    assert max(map(len, text_of(await found(long)).splitlines())) <= COLUMNS <= 100


async def test_the_json_names_each_check_and_the_cause() -> None:
    document = json.loads(json_of(await found(FINE, BROKEN)))

    assert (document["verdict"], document["cause"]) == ("failure", "test.broken")
    assert [each["id"] for each in document["checks"]] == ["test.fine", "test.broken"]
    broken = document["checks"][1]
    assert broken["seconds"] >= 0
    assert {name: broken[name] for name in ("verdict", "text", "way_out", "details", "facts")} == {
        "verdict": "failure",
        "text": "it is broken",
        "way_out": "mend it",
        "details": ["twice"],
        "facts": {},
    }


async def test_neither_passwords_nor_the_token_are_printed() -> None:
    url, token = "postgresql://brain:hidden@localhost/shop", "eyJhidden.token.of.a.client"
    leak = of("test.leak", failure(f"at {url}", f"use {token}", [f"{url} with {token}"]))
    results = await run(request(token=token), [leak])

    assert "hidden" not in text_of(results) + json_of(results)
