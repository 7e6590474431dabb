"""The guides for operators name what there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from brain.close_codes import CloseCode
from brain.doctor.checks import CHECKS
from brain.settings import Settings
from tests.metrics.exposed import documented

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
TROUBLESHOOTING = (DOCS / "troubleshooting.md").read_text()
EVENTS = re.findall(r"^\| `([a-z_]+)` \|", (DOCS / "logs.md").read_text(), re.MULTILINE)
PAGES = [*sorted(DOCS.glob("*.md")), *sorted(ROOT.glob("*.md"))]
DEPLOY = [file for file in sorted((ROOT / "deploy").rglob("*")) if file.is_file()]


def test_the_list_of_documents_has_every_page() -> None:
    listed = set(re.findall(r"\]\(([\w-]+\.md)", (DOCS / "README.md").read_text()))

    assert listed == {page.name for page in DOCS.glob("*.md")} - {"README.md"}


def test_troubleshooting_names_checks_that_the_doctor_makes() -> None:
    named = set(re.findall(r"`([a-z]+\.[a-z_]+)`", TROUBLESHOOTING))
    # `brain.capture` is a setting of a session.
    assert len(named) > 20
    assert named - {"brain.capture"} <= {check.id for check in CHECKS}


def test_troubleshooting_names_metrics_and_log_events_that_there_are() -> None:
    metrics = set(re.findall(r"`(brain_[a-z_]+)[`{]", TROUBLESHOOTING)) - {"brain_reader"}
    events = set(re.findall(r"`(worker_[a-z_]+)`", TROUBLESHOOTING))
    assert len(metrics) > 10
    assert metrics <= set(documented())
    assert events and events <= set(EVENTS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_setting_that_a_page_names_exists(page: Path) -> None:
    assert unknown_settings(page.read_text()) == set()


@pytest.mark.parametrize("file", DEPLOY, ids=lambda file: str(file.relative_to(ROOT)))
def test_every_setting_that_a_file_for_deployment_names_exists(file: Path) -> None:
    assert unknown_settings(file.read_text()) == set()


# Of the compose file, of `brain listen` and of the tests; and a name that stands for any.
OTHER_VARIABLES = {
    "BRAIN_DATABASE_PASSWORD",
    "BRAIN_HOST_NAME",
    "BRAIN_TEST_POSTGRES",
    "BRAIN_TOKEN",
    "BRAIN_URL",
    "BRAIN_X",
}


def unknown_settings(text: str) -> set[str]:
    """Return the variables in a text that are no settings; `BRAIN_MAX_…` stands for several."""
    named = set(re.findall(r"\bBRAIN_[A-Z0-9_]*[A-Z0-9]\b(?!…|_)", text))
    return named - {f"BRAIN_{name.upper()}" for name in Settings.model_fields} - OTHER_VARIABLES


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_close_code_that_a_page_names_exists(page: Path) -> None:
    named = set(
        map(
            int,
            re.findall(r"(?:closed with|closes? .{0,40}with|code) `?(4\d{3})\b", page.read_text()),
        )
    )
    assert named <= set(CloseCode)
