"""Runs single checks of brain doctor, as the command would."""

from __future__ import annotations

from typing import Any

from brain.doctor.check import Check
from brain.doctor.examination import Request
from brain.doctor.finding import Finding
from brain.doctor.runner import run
from brain.settings import Settings


def request(**members: Any) -> Request:
    """Return a request with these members; those of the settings are not read from here."""
    return Request(**{"settings": Settings(), **members})


async def found(check: Check, *before: Check, **members: Any) -> Finding:
    """Return what a check finds, after others that it follows on."""
    results = await run(request(**members), [*before, check])
    return results[-1].finding
