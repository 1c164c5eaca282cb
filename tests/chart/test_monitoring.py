"""Alerts, dashboards and runbooks speak of metrics that exist, and of each other."""

import json
import re
from typing import Any

import pytest
import yaml

from helm_chart import CHART, ROOT, Helm, of_kind

RUNBOOKS = ROOT / "docs" / "runbooks"
DASHBOARDS = sorted((CHART / "files" / "dashboards").glob("*.json"))
FROM_PROMETHEUS = {"up"}  # made by the scraper itself
HISTOGRAM_PARTS = ("_bucket", "_sum", "_count")
SECTIONS = ("What it means", "What callers notice", "Look", "Do", "When it is a false alarm")


def documented() -> dict[str, set[str]]:
    """Metric -> its labels, from docs/metrics.md; scraping adds the pod's."""
    page = (ROOT / "docs" / "metrics.md").read_text()
    rows = re.findall(r"^\| `(t2i_\w+)` \| ([^|]*)\|", page, re.MULTILINE)
    return {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows}


def unknown_metrics(expression: str) -> set[str]:
    """Names in a query that no process exposes."""
    names = set(re.findall(r"\bt2i_\w+", re.sub(r'"[^"]*"', "", expression)))
    known = documented()
    plain = {
        next((name.removesuffix(part) for part in HISTOGRAM_PARTS if name.removesuffix(part) in known), name)
        for name in names
    }
    return plain - known.keys()


def alerts() -> list[dict[str, Any]]:
    """Every rule."""
    groups = yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_alerts_use_documented_metrics() -> None:
    """An alert on a metric that nobody exposes never fires."""
    unknown = {rule["alert"]: unknown_metrics(rule["expr"]) for rule in alerts()}
    assert {alert: names for alert, names in unknown.items() if names} == {}


def test_every_alert_has_its_runbook_and_no_page_is_left_over() -> None:
    """With the same name, all sections filled, and a severity people can route by."""
    assert {rule["alert"] for rule in alerts()} == {page.stem for page in RUNBOOKS.glob("*.md")}
    for rule in alerts():
        text = (RUNBOOKS / f"{rule['alert']}.md").read_text()
        parts = dict(re.findall(r"^## (.+?)\n\n(.+?)(?=\n## |\Z)", text, re.MULTILINE | re.DOTALL))
        assert tuple(parts) == SECTIONS, rule["alert"]
        assert f"Severity: {rule['labels']['severity']}." in text
        assert {"summary", "description"} <= rule["annotations"].keys()


def test_runbooks_use_documented_metrics() -> None:
    """Queries in the pages can be pasted."""
    for page in RUNBOOKS.glob("*.md"):
        for query in re.findall(r"```promql\n(.*?)```", page.read_text(), re.DOTALL):
            assert unknown_metrics(query) == set(), page.name


def test_rule_object_links_runbooks_where_they_are_published(helm: Helm) -> None:
    """`runbook_url` is the convention; the rest of a rule, templates included, arrives untouched."""
    (found,) = of_kind(
        helm.objects(
            "--set",
            "monitoring.prometheusRule.enabled=true,monitoring.prometheusRule.runbooksUrl=https://docs.example.com/r/",
        ),
        "PrometheusRule",
    )
    rendered = [rule for group in found["spec"]["groups"] for rule in group["rules"]]
    assert [rule["expr"] for rule in rendered] == [rule["expr"] for rule in alerts()]
    for rule in rendered:
        assert rule["annotations"]["runbook_url"] == f"https://docs.example.com/r/{rule['alert']}.md"
    assert any("{{ $labels.namespace }}" in rule["annotations"]["summary"] for rule in rendered)


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_dashboard_is_importable_and_uses_documented_metrics(path: Any) -> None:
    """Valid JSON, unique panel ids, no panel outside the grid or without a query, no data source of somebody's own."""
    board = json.loads(path.read_text())
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        if panel["type"] == "row":
            continue
        assert panel["datasource"]["uid"] == "$datasource"
        assert panel["targets"], panel["title"]
        for target in panel["targets"]:
            assert unknown_metrics(target["expr"]) == set(), panel["title"]
            assert re.search(r"\b(t2i|process)_", target["expr"]), panel["title"]
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            assert unknown_metrics(variable["query"]["query"]) == set()


def test_dashboards_cover_what_serves() -> None:
    """What is worth exposing is worth a panel."""
    shown = " ".join(path.read_text() for path in DASHBOARDS)
    assert {name for name in documented() if name not in shown} == set()


def test_dashboards_arrive_whole(helm: Helm) -> None:
    """Each as a ConfigMap with the label that Grafana's sidecar looks for; the text is the file's."""
    maps = of_kind(helm.objects("--set", "monitoring.dashboards.enabled=true"), "ConfigMap")
    found = {name: json.loads(text) for entry in maps for name, text in entry["data"].items()}
    assert found == {path.name: json.loads(path.read_text()) for path in DASHBOARDS}
    assert all(entry["metadata"]["labels"]["grafana_dashboard"] == "1" for entry in maps)
