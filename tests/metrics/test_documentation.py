"""docs/metrics.md, the alerts and the board have the metrics that there are, and no others."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

from brain.metrics.metrics import Metrics
from brain.settings import Settings
from tests.metrics.exposed import DOCUMENT, ROOT, ROW, documented

PROMETHEUS = ROOT / "deploy" / "prometheus"
BOARD = ROOT / "deploy" / "grafana" / "brain.json"
NAME = re.compile(r"\bbrain_[a-z_]+")
SUFFIXES = re.compile(r"_(bucket|count|sum)$")

needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool")


def declared(registry: CollectorRegistry) -> dict[str, tuple[str, frozenset[str]]]:
    """Return the type and the labels of each metric of a registry, by its documented name."""
    found = {}
    for collector in registry._collector_to_names:
        assert isinstance(collector, MetricWrapperBase)
        (family,) = collector.describe()
        name = f"{family.name}_total" if family.type == "counter" else family.name
        found[name] = family.type, frozenset(collector._labelnames)
    return found


def test_every_metric_is_documented_with_its_type_and_labels_and_no_other_is() -> None:
    assert documented() == declared(Metrics(Settings()).registry)
    assert len(ROW.findall(DOCUMENT)) == len(documented())


def expressions(board: dict[str, Any]) -> list[str]:
    return [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())] + [
        annotation["expr"] for annotation in board["annotations"]["list"]
    ]


def test_the_board_shows_every_metric_that_there_is_and_no_other() -> None:
    board = json.loads(BOARD.read_text())
    used = {SUFFIXES.sub("", name) for text in expressions(board) for name in NAME.findall(text)}
    assert used == set(documented())


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    panels = json.loads(BOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24


def test_alerts_are_about_metrics_that_there_are() -> None:
    text = (PROMETHEUS / "alerts.yml").read_text()
    used = {SUFFIXES.sub("", name) for name in NAME.findall(text)}
    assert used - {"brain_reader"} <= set(documented())  # which is a role


def test_every_alert_has_a_test_in_which_it_fires() -> None:
    names = re.findall(r"- alert: (\w+)", (PROMETHEUS / "alerts.yml").read_text())
    tests = (PROMETHEUS / "alerts_test.yml").read_text()
    assert len(names) == len(set(names)) > 30
    for name in names:
        assert f"  - name: {name}\n" in tests
        assert f"labels: '{{alertname=\"{name}\"}}'" in tests


def promtool(*arguments: str, folder: Path = PROMETHEUS) -> None:
    done = subprocess.run(
        ["promtool", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_the_alerts_fire_when_they_should_and_not_while_all_is_well() -> None:
    promtool("check", "config", "prometheus.yml")
    promtool("test", "rules", "alerts_test.yml")


@needs_promtool
def test_promtool_understands_every_expression_of_the_board(tmp_path: Path) -> None:
    texts = [
        text.replace("$__rate_interval", "5m").replace("$instance", ".*")
        for text in expressions(json.loads(BOARD.read_text()))
    ]
    rules = [{"record": f"panel:{number}", "expr": text} for number, text in enumerate(texts)]
    # JSON is YAML.
    groups = {"groups": [{"name": "board", "rules": rules}]}
    (tmp_path / "rules.yml").write_text(json.dumps(groups))
    promtool("check", "rules", "rules.yml", folder=tmp_path)
