"""The findings as text for a person, and as JSON for programs."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson

import brain
from brain.doctor.finding import Finding, counted
from brain.doctor.runner import Result, first_cause
from brain.problems import printable

COLUMNS = 96
VERDICT_COLUMNS = 9
ID_COLUMNS = 24


def text_of(results: Sequence[Result]) -> str:
    """Return the findings in lines of at most 96 columns, if words allow; the verdict is last."""
    checked = [each for each in results if each.finding.verdict != "not checked"]
    lines = [line for result in checked for line in lines_of(result)]
    unchecked = [each for each in results if each.finding.verdict == "not checked"]
    if unchecked:
        lines += ["", "not checked:", *lines_of_unchecked(unchecked)]
    return "\n".join([*lines, "", *verdict_lines(results)])


def lines_of(result: Result) -> Iterable[str]:
    """Yield what a check has found: the verdict, the details, the way out."""
    finding = result.finding
    head = f"{finding.verdict:<{VERDICT_COLUMNS}} {result.id:<{ID_COLUMNS}} "
    yield from wrapped(finding.text, head, " " * (VERDICT_COLUMNS + 1 + 4))
    for detail in finding.details:
        yield from wrapped(detail, " " * (VERDICT_COLUMNS + 1) + "- ", " " * 12)
    if finding.way_out is not None:
        yield from wrapped(finding.way_out, " " * (VERDICT_COLUMNS + 1) + "way out: ", " " * 14)


def lines_of_unchecked(results: Iterable[Result]) -> Iterable[str]:
    """Yield what was not checked: each reason once, with the checks that it concerns."""
    by_reason: dict[tuple[str, str], list[str]] = {}
    for result in results:
        reason = (result.finding.text, result.finding.way_out or "")
        by_reason.setdefault(reason, []).append(result.id)
    for (text, way_out), ids in by_reason.items():
        yield from wrapped(f"{text}: {way_out}" if way_out else text, "  ", "    ")
        yield from wrapped(", ".join(ids), "    ", "    ")


def verdict_lines(results: Sequence[Result]) -> Iterable[str]:
    """Yield the summary, which names the first cause."""
    cause = first_cause(results)
    if cause is None:
        checks = counted(count_of(results, "ok"), "check")
        rest = count_of(results, "not checked")
        yield f"Verdict: ok. {checks} found nothing wrong; not checked: {rest}."
        return
    finding = cause.finding
    counts = ", ".join(counted(count_of(results, each), each) for each in ("failure", "warning"))
    yield from wrapped(f"{finding.verdict}: {finding.text} ({cause.id})", "Verdict: ", " " * 9)
    yield from wrapped(finding.way_out or "", "Way out: ", " " * 9)
    yield f"In all:  {counts}, {count_of(results, 'ok')} ok, not checked" + (
        f" {count_of(results, 'not checked')}."
    )


def count_of(results: Sequence[Result], verdict: str) -> int:
    return sum(result.finding.verdict == verdict for result in results)


def wrapped(text: str, first: str, later: str) -> list[str]:
    """Return a text in lines; a word is never cut, so that a command can be copied."""
    return textwrap.wrap(
        text,
        COLUMNS,
        initial_indent=first,
        subsequent_indent=later,
        break_long_words=False,
        break_on_hyphens=False,
    )


def json_of(results: Sequence[Result]) -> str:
    """Return the findings as one JSON object."""
    cause = first_cause(results)
    document = {
        "brain": brain.__version__,
        "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "verdict": "ok" if cause is None else cause.finding.verdict,
        "cause": None if cause is None else cause.id,
        "checks": [
            {"id": result.id, **members_of(result.finding), "seconds": round(result.seconds, 4)}
            for result in results
        ],
    }
    return orjson.dumps(document, option=orjson.OPT_INDENT_2, default=printable_value).decode()


def members_of(finding: Finding) -> dict[str, Any]:
    return {
        "verdict": finding.verdict,
        "text": finding.text,
        "way_out": finding.way_out,
        "details": list(finding.details),
        "facts": dict(finding.facts),
    }


def printable_value(value: Any) -> str:
    return printable(str(value))
