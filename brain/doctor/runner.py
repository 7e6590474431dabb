"""Runs the checks one after another, each within its time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import asyncpg

from brain.database.connection import DATABASE_ERRORS, first_line
from brain.doctor.check import Check
from brain.doctor.examination import Examination, Request
from brain.doctor.finding import Finding, NotChecked, failure
from brain.errors import BrainError
from brain.problems import printable

MOST_SECONDS = 30.0
"""For all checks together; what is left then is not checked."""
# A word like `test-123` is a token for development, and no secret.
LEAST_SECRET_CHARACTERS = 16


@dataclass(frozen=True, slots=True)
class Result:
    """A check that was run."""

    id: str
    finding: Finding
    seconds: float


async def run(
    request: Request, checks: Iterable[Check], most_seconds: float = MOST_SECONDS
) -> list[Result]:
    """Return what each check finds, in order."""
    examination = Examination(request)
    deadline = time.monotonic() + most_seconds
    results = []
    try:
        for check in checks:
            started = time.monotonic()
            finding = without_secrets(await run_one(check, examination, deadline), request)
            results.append(Result(check.id, finding, time.monotonic() - started))
    finally:
        await examination.close()
    return results


async def run_one(check: Check, examination: Examination, deadline: float) -> Finding:
    """Return what a check finds; one that fails itself is a finding too."""
    seconds = min(check.most_seconds, deadline - time.monotonic())
    if seconds <= 0:
        return Finding(
            verdict="not checked",
            text="the time for all checks was used up by those before",
            way_out="end what these name, and run brain doctor again",
        )
    try:
        async with asyncio.timeout(seconds):
            return await check.answer(examination)
    except NotChecked as error:
        return Finding(verdict="not checked", text=error.text, way_out=error.way_out)
    except TimeoutError:
        examination.drop_connection()
        return failure(
            f"no answer within {seconds:.3g} s",
            "see the failures before this one; if there is none, run brain doctor again",
        )
    except Exception as error:
        if isinstance(error, asyncpg.InterfaceError):
            examination.drop_connection()
        return of_error(error)


def of_error(error: Exception) -> Finding:
    """Return what it means that a check raised an error."""
    match error:
        case asyncpg.LockNotAvailableError() | asyncpg.QueryCanceledError():
            return failure(
                f"the database did not answer in time: {first_line(error)}",
                "see database.locks, which names who holds a lock",
            )
        case asyncpg.InsufficientPrivilegeError():
            return failure(f"the role lacks a right: {first_line(error)}", "see database.rights")
        case BrainError():
            return failure(first_line(error), "see the failures before this one")
        case OSError():  # The driver has errors of its own for the connection to the database.
            return failure(
                f"a connection broke: {type(error).__name__}: {first_line(error)}",
                "see the failures before this one; if there is none, run brain doctor again",
            )
        case _ if isinstance(error, DATABASE_ERRORS):
            return failure(f"the database reports: {first_line(error)}", "see database.reachable")
        case _:
            return failure(
                f"the check itself failed: {type(error).__name__}: {first_line(error)}",
                "this is a bug of brain doctor: please report it with this line",
            )


def without_secrets(finding: Finding, request: Request) -> Finding:
    """Return a finding without the token, and without passwords of URLs."""

    def clean(text: str) -> str:
        if request.token and len(request.token) >= LEAST_SECRET_CHARACTERS:
            text = text.replace(request.token, "***")
        return printable(text)

    return replace(
        finding,
        text=clean(finding.text),
        way_out=None if finding.way_out is None else clean(finding.way_out),
        details=[clean(line) for line in finding.details],
    )


def first_cause(results: Sequence[Result]) -> Result | None:
    """Return the first failure, or else the first warning: the checks go from cause to effect."""
    for verdict in ("failure", "warning"):
        for result in results:
            if result.finding.verdict == verdict:
                return result
    return None
