"""What conf/ and docs/ say of metrics, next to what a running server gives."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.support import small_images
from tests.support.debark_process import DebarkProcess
from tests.support.hub import Hub

TOP = Path(__file__).parents[2]
_METRIC = re.compile(r"\b((?:debark|process)_[a-z_]+[a-z])(?:\{([^}]*)\})?")
_LABEL = re.compile(r'(\w+)[=!]~?"')
_GROUPED = re.compile(r"by \(([^)]*)\)")
_SCRAPED = {"instance", "job"}
"""Labels that Prometheus adds."""


@pytest.fixture(scope="module")
def metrics(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """The labels of each series by its name, after a pull; those that nothing was counted of yet have none."""
    directory = tmp_path_factory.mktemp("monitoring")
    with Hub(directory / "hub") as hub:
        small_images.tiny().push(hub.client(), "team/app", "1")
        with DebarkProcess(directory / "debark", {"hub.test": hub.url}) as debark:
            debark.client().manifest("hub.test/team/app", "1")
            debark.wait_for("hub.test/team/app:1")
            text = debark.get("/metrics").body.decode()
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(family.type, [""])
        found |= {family.name + suffix: set() for suffix in suffixes}
        for sample in family.samples:
            found[sample.name] |= sample.labels.keys()
    return found


def expressions() -> list[str]:
    """Every query of the alerts and of the dashboard."""
    rules = yaml.safe_load((TOP / "conf/prometheus/debark.rules.yml").read_text())
    alerts = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    dashboard = json.loads((TOP / "conf/grafana/debark.json").read_text())
    return alerts + [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


@pytest.mark.parametrize("expression", [found for found in expressions() if found != 'up{job="debark"} == 0'])
def test_alerts_and_dashboard_ask_for_what_there_is(metrics: dict[str, set[str]], expression: str) -> None:
    asked = _METRIC.findall(expression)
    assert asked
    for name, matchers in asked:
        assert name in metrics
        grouped = {label.strip() for group in _GROUPED.findall(expression) for label in group.split(",")}
        if metrics[name]:
            assert ({*_LABEL.findall(matchers), *grouped} - _SCRAPED - {"le"}) <= metrics[name]


def test_the_documentation_has_every_metric_and_no_other(metrics: dict[str, set[str]]) -> None:
    text = (TOP / "docs/monitoring.md").read_text()
    families = {re.sub(r"(?<=_seconds)_(?:bucket|sum|count)$", "", name) for name in metrics if name.startswith("debark_")}
    assert {name for name, _ in _METRIC.findall(text) if name.startswith("debark_")} == families


@pytest.mark.parametrize("page", [TOP / "README.md", *sorted((TOP / "docs").glob("*.md"))], ids=lambda page: page.name)
def test_pages_name_metrics_that_there_are(metrics: dict[str, set[str]], page: Path) -> None:
    for name, matchers in _METRIC.findall(page.read_text()):
        if name.startswith("debark_"):
            assert any(known.startswith(name) for known in metrics), name
            assert set(_LABEL.findall(matchers)) <= metrics.get(name, set())
