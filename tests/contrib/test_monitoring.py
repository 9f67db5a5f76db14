"""Dashboard and alerts ask for nothing that is not there, and Prometheus itself accepts them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from helpers.promtool import check
from litestream.metrics import Histogram, Metrics, expose

CONTRIB = Path(__file__).resolve().parents[2] / "contrib"
ALERTS = CONTRIB / "prometheus" / "alerts.yml"
ALERTS_TEST = CONTRIB / "prometheus" / "alerts_test.yml"
DASHBOARD = json.loads((CONTRIB / "grafana" / "dashboard.json").read_text())
OF_SCRAPES = {"instance", "job", "le"}
"""Labels that no metric of ours has by itself: of Prometheus, and of the buckets of a histogram."""

_NAME = re.compile(r"\b((?:litestream|process|python)_\w+)(?:\{([^}]*)\})?")


def alerts() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def shown() -> Iterator[tuple[str, str]]:
    """Title and expression of whatever the dashboard shows."""
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]


def known() -> dict[str, set[str]]:
    """The labels of every name in an exposition."""
    metrics = Metrics()
    names: dict[str, set[str]] = {}
    for family in metrics.families():
        endings = ("_bucket", "_sum", "_count") if isinstance(family, Histogram) else ("",)
        names |= {family.name + ending: set(family.label_names) for ending in endings}
    process = expose(metrics).decode()
    names |= {name: set() for name in re.findall(r"^(process_\w+|python_\w+)[ {]", process, re.MULTILINE)}
    return names


def unknown(expr: str) -> list[str]:
    """Names and labels in an expression that no exposition has."""
    found, names = [], known()
    labels: set[str] = set()
    for name, matchers in _NAME.findall(expr):
        if name not in names:
            found.append(name)
            continue
        labels |= names[name]
        found += [label for label in re.findall(r"(\w+)\s*[=!]", matchers) if label not in names[name] | OF_SCRAPES]
    for group in re.findall(r"\bby \(([^)]*)\)", expr):
        found += [label.strip() for label in group.split(",") if label.strip() not in labels | OF_SCRAPES]
    return found


def test_only_metrics_that_exist() -> None:
    """Every name and label in dashboard and alerts is one of our exposition; the check sees one that is not."""
    expressions = [*shown(), *((rule["alert"], rule["expr"]) for rule in alerts())]
    assert len(expressions) > 40
    assert {title: missing for title, expr in expressions if (missing := unknown(expr))} == {}
    assert unknown('sum by (mode) (litestream_db_size{name="x"}) + litestream_nope') == [
        "name",
        "litestream_nope",
        "mode",
    ]


def test_every_metric_of_trouble_has_an_alert() -> None:
    """What says that something is wrong is alerted on."""
    text = " ".join(rule["expr"] for rule in alerts())
    for name in ("db_error", "disk_full", "replica_error", "replica_lag_seconds", "replica_verified_ok"):
        assert f"litestream_{name}" in text


def test_alerts_by_promtool() -> None:
    """Prometheus accepts the rules; each fires when it should, with the text that it should have, and not before."""
    accepted = check("check", "rules", ALERTS)
    assert accepted.returncode == 0, accepted.stdout + accepted.stderr
    done = check("test", "rules", ALERTS_TEST)
    assert done.returncode == 0, done.stdout + done.stderr
    cases = [case for test in yaml.safe_load(ALERTS_TEST.read_text())["tests"] for case in test["alert_rule_test"]]
    names = {rule["alert"] for rule in alerts()}
    assert {case["alertname"] for case in cases if case.get("exp_alerts")} == names
    assert {case["alertname"] for case in cases if not case.get("exp_alerts")} == names


def test_dashboard_by_promtool(tmp_path: Path) -> None:
    """Prometheus' parser accepts every expression of the dashboard."""
    rules = []
    for number, (_, expr) in enumerate(shown()):
        plain = expr.replace("$__rate_interval", "5m").replace("$instance", ".*").replace("$db", ".*")
        assert "$" not in plain
        rules.append({"record": f"panel:{number}", "expr": plain})
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = check("check", "rules", tmp_path / "rules.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_dashboard() -> None:
    """Panels have numbers of their own, do not cover each other, and use variables and a data source that exist."""
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: dict[tuple[int, int], str] = {}
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert taken.setdefault((x, y), panel["title"]) == panel["title"]
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]} | {"__rate_interval", "__all"}
    assert set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD))) <= variables
