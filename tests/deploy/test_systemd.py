"""The systemd unit in `deploy/systemd/`, and what Brain reports to the manager that it names."""

from __future__ import annotations

import re
import shutil
import sys
from configparser import RawConfigParser
from pathlib import Path

import pytest

from brain.errors import DatabaseUnreachable, PortTaken, UsageError
from brain.settings import Settings
from tests.end_to_end.brain import ended

SYSTEMD = Path(__file__).parents[2] / "deploy" / "systemd"
UNIT = (SYSTEMD / "brain.service").read_text()
# Of ten, ten being a service that may do everything; 2.0 is a strict one.
MOST_EXPOSURE = 2.0

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="systemd is Linux alone")
needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze"
)


@pytest.fixture
def service() -> dict[str, str]:
    """The settings of the section `Service`."""
    parser = RawConfigParser(strict=False, delimiters=["="], interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(UNIT)
    return dict(parser["Service"])


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit, with a `brain` that there is on this machine."""
    brain = tmp_path / "brain"
    brain.write_text(f'#!/bin/sh\nexec {sys.executable} -m brain "$@"\n')
    brain.chmod(0o755)
    file = tmp_path / "brain.service"
    file.write_text(UNIT.replace("/opt/brain/bin/brain", str(brain)))
    return file


@needs_systemd
async def test_systemd_finds_nothing_wrong_with_the_unit(unit: Path) -> None:
    verified = await ended(["systemd-analyze", "verify", "--man=no", str(unit)])
    of_this_unit = [line for line in verified.stderr.splitlines() if "brain.service" in line]
    assert (verified.status, of_this_unit) == (0, [])


@needs_systemd
async def test_systemd_finds_a_mistake_in_a_unit(unit: Path) -> None:
    unit.write_text(unit.read_text().replace("ProtectSystem=strict", "ProtectSystem=stirct"))
    verified = await ended(["systemd-analyze", "verify", "--man=no", str(unit)])
    assert "stirct" in verified.stderr


@needs_systemd
async def test_the_unit_exposes_little(unit: Path) -> None:
    options = ("--offline=true", "--no-pager", f"--threshold={MOST_EXPOSURE * 10:.0f}")
    judged = await ended(["systemd-analyze", "security", *options, str(unit)])
    if "unrecognized option" in judged.stderr:
        pytest.skip("this systemd judges no file: it is older than 250")
    (exposure,) = re.findall(r"exposure level for brain.service: ([\d.]+)", judged.stdout)
    assert judged.status == 0, judged.stdout
    assert 0 < float(exposure) <= MOST_EXPOSURE


@needs_systemd
async def test_systemd_makes_the_user_of_the_unit(service: dict[str, str]) -> None:
    made = await ended(["systemd-sysusers", "--dry-run", str(SYSTEMD / "brain.sysusers")])
    assert made.status == 0, made.stderr
    assert f"'{service['User']}'" in made.stderr + made.stdout


def test_the_limits_of_the_unit_leave_room_for_the_defaults(service: dict[str, str]) -> None:
    settings = Settings()
    assert int(service["LimitNOFILE"]) >= settings.max_connections + 5_000
    assert int(service["TimeoutStopSec"]) > settings.drain_seconds + settings.shutdown_seconds + 10
    assert int(service["WatchdogSec"]) > 2 * settings.database_timeout_seconds


def test_wrong_usage_is_not_tried_again_and_a_port_that_is_taken_is(
    service: dict[str, str],
) -> None:
    assert service["Restart"] == "always"
    given_up = {int(status) for status in service["RestartPreventExitStatus"].split()}
    assert UsageError.exit_code in given_up
    # What listened there may end: a Brain that was started by hand, or one that drains.
    assert PortTaken.exit_code not in given_up
    assert DatabaseUnreachable.exit_code not in given_up


def test_brain_reports_to_the_manager_that_the_unit_names(service: dict[str, str]) -> None:
    # tests/end_to_end/test_service_manager.py has what it reports.
    assert (service["Type"], service["NotifyAccess"]) == ("notify", "main")
