"""Clocks: the time of the database, of Brain, and here."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime

from brain.doctor.check import check
from brain.doctor.examination import Examination
from brain.doctor.finding import Finding, NotChecked, failure, ok, warning

DIFFERENT_SECONDS = 2.0
# The header `Date` has whole seconds.
DATE_SECONDS = 1.0
SYNCHRONISE = "synchronise the clocks of both machines (timedatectl, chronyc tracking)"


def of_offset(seconds: float, owner: str, leeway_seconds: float) -> Finding:
    """Return what it means that a clock is ahead of the one here by so many seconds."""
    size = abs(seconds)
    text = (
        f"the clock of {owner} is {size:.1f} s {'ahead of' if seconds > 0 else 'behind'} this one"
    )
    if size > max(leeway_seconds, DIFFERENT_SECONDS):
        return failure(
            f"{text}: tokens are refused that are valid, and accepted that are not",
            SYNCHRONISE,
            offset_seconds=round(seconds, 2),
        )
    if size > DIFFERENT_SECONDS:
        return warning(text, SYNCHRONISE, offset_seconds=round(seconds, 2))
    return ok(f"the clock of {owner} agrees with this one", offset_seconds=round(seconds, 2))


@check("clocks.database")
async def database(examination: Examination) -> Finding:
    """The clock of the database agrees with the one here."""
    connection = await examination.connection()
    before = time.time()
    there = await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8")
    here = (before + time.time()) / 2
    return of_offset(there - here, "the database", examination.settings.jwt_leeway_seconds)


@check("clocks.brain")
async def of_brain(examination: Examination) -> Finding:
    """The clock of the Brain behind the URL, or of the proxy, agrees with the one here."""
    found = examination.shared.get("date")
    if not examination.url or found is None or found[0] is None:
        raise NotChecked("Brain's answer has no Date", "have the proxy pass on the header Date")
    text, before, after = found
    try:
        there = parsedate_to_datetime(text).timestamp()
    except ValueError:
        raise NotChecked("Brain's answer has no Date", "have the proxy pass on a Date") from None
    # It was made between the two, and its fraction was cut off.
    offset = 0.0
    if there + DATE_SECONDS < before:
        offset = there + DATE_SECONDS - before
    elif there > after:
        offset = there - after
    return of_offset(offset, "Brain", examination.settings.jwt_leeway_seconds)
