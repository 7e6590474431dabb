"""The settings that the environment has here: brain serve should be given the same."""

from __future__ import annotations

from brain.auth.hosts import hosts_of
from brain.auth.keys import keys_of
from brain.doctor.check import check
from brain.doctor.examination import Examination
from brain.doctor.finding import Finding, failure, ok, warning
from brain.errors import UsageError
from brain.settings import unknown_variables
from brain.system import installed_systems, select_systems


@check("settings.valid")
async def valid(examination: Examination) -> Finding:
    """Each setting has a value that it may have, and they do not contradict each other."""
    wrong = list(examination.request.setting_errors)
    settings = examination.settings
    for refuse in (
        lambda: keys_of(settings),
        lambda: hosts_of(settings),
        lambda: select_systems(settings.systems, installed_systems()),
    ):
        try:
            refuse()
        except UsageError as error:
            wrong.append(str(error))
    if wrong:
        return failure(
            f"brain serve does not start with these settings: {wrong[0]}",
            "change or unset what is named; docs/operating.md lists the settings",
            wrong[1:],
        )
    return ok("the settings of this environment can be used")


@check("settings.variables")
async def variables(examination: Examination) -> Finding:
    """Each variable `BRAIN_…` is a setting."""
    unknown = unknown_variables(examination.request.environment)
    if unknown:
        return warning(
            f"{unknown[0]}; brain serve ignores it",
            "rename or unset it: docs/operating.md lists the settings",
            unknown[1:],
        )
    return ok("every variable BRAIN_… is a setting")
