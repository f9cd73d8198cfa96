"""Dashboards and alerts ask only for series that there are."""

import itertools
import json
import re

import pytest
import yaml

from kars.controller import scrape
from kars.controller.metrics import Metrics
from tests.chart.rendered import CHART, EVERYTHING, one, render
from tests.cluster import waiting
from tests.system.router import Router

DASHBOARDS = sorted((CHART / "dashboards").glob("*.json"))
ALERTS = yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())["groups"]
FAMILY = re.compile(r"^# TYPE (\S+) (\S+)$", re.MULTILINE)
NAME = re.compile(r"\b(?:kars|process)_[a-z0-9_]+\b")
SUFFIXES = ("_bucket", "_sum", "_count")


def expressions():
    """Every query, with where it stands."""
    for path in DASHBOARDS:
        board = json.loads(path.read_text())
        for panel in board["panels"]:
            for target in panel["targets"]:
                yield f"{path.name}: {panel['title']}", target["expr"]
        for variable in board["templating"]["list"]:
            if variable["type"] == "query":
                yield f"{path.name}: {variable['name']}", variable["query"]
    for group in ALERTS:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]


@pytest.fixture(scope="module")
def families(tmp_path_factory):
    """The metrics that a real router and a real controller say that they have, with their types."""
    router = Router(tmp_path_factory.mktemp("router"), {"OPENAI_BASE_URL": "http://127.0.0.1:9/v1"}).start()
    try:
        # The blocklist is read beside the start; what it says of itself comes a moment later.
        waiting.wait(lambda: "kars_blocklist_age_seconds" in router.metrics())
        found = dict(FAMILY.findall(router.metrics()))
    finally:
        router.stop()
    made = {row.name: "counter" if row.name.endswith("_total") else "gauge" for row in scrape.ROWS}
    return found | made | dict(FAMILY.findall(Metrics().render().decode()))


def test_every_query_names_series_that_exist(families):
    for where, expression in expressions():
        names = set(NAME.findall(expression))
        assert names, where
        for name in names:
            base = next((name.removesuffix(each) for each in SUFFIXES if name.endswith(each)), name)
            known = families.get(name) or (families.get(base) == "histogram")
            assert known, f"{where}: no series {name}"


def test_counters_are_rated_and_gauges_are_not(families):
    for where, expression in expressions():
        for name in NAME.findall(expression):
            rated = re.search(rf"(rate|increase)\({name}\b", expression)
            if families.get(name) == "counter" and "label_values" not in expression:
                assert rated, f"{where}: {name} is a counter"
            elif families.get(name) == "gauge":
                assert not rated, f"{where}: {name} is a gauge"


def test_every_alert_says_what_to_do_and_has_a_name_of_its_own():
    rules = list(itertools.chain(*(group["rules"] for group in ALERTS)))
    assert len({rule["alert"] for rule in rules}) == len(rules)
    for rule in rules:
        assert rule["labels"]["severity"] in {"info", "warning", "critical"}
        assert rule["annotations"]["summary"] and rule["annotations"]["description"]
        assert rule["expr"].count("(") == rule["expr"].count(")")


def test_alerts_are_rendered_as_written_but_for_those_that_are_switched_off():
    rule = one(render(EVERYTHING), "PrometheusRule", "kars")
    assert rule["spec"]["groups"] == ALERTS
    without = one(
        render({**EVERYTHING, "monitoring.prometheusRule.disabled": ["KarsBlocklistOld"]}), "PrometheusRule", "kars"
    )
    names = [each["alert"] for group in without["spec"]["groups"] for each in group["rules"]]
    assert "KarsBlocklistOld" not in names and len(names) == sum(len(group["rules"]) for group in ALERTS) - 1


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_is_rendered_as_written_and_lets_one_choose_the_data_source(path):
    board = one(render(), "ConfigMap", f"{path.stem}-dashboard")
    assert board["data"] == {path.name: path.read_text()}
    assert board["metadata"]["labels"]["grafana_dashboard"] == "1"
    read = json.loads(path.read_text())
    assert read["uid"] == path.stem
    assert len({panel["id"] for panel in read["panels"]}) == len(read["panels"])
    assert {target["datasource"]["uid"] for panel in read["panels"] for target in panel["targets"]} == {"${datasource}"}


def test_routers_and_controllers_are_scraped_at_their_metrics_ports():
    objects = render(EVERYTHING)
    routers = one(objects, "PodMonitor", "kars-sandbox-router")["spec"]
    assert routers["namespaceSelector"] == {"any": True}
    assert routers["selector"]["matchLabels"] == {"kars.azure.com/component": "sandbox"}
    assert [(end["port"], end["honorLabels"]) for end in routers["podMetricsEndpoints"]] == [("metrics", True)]
    controllers = one(objects, "PodMonitor", "kars-controller")["spec"]
    pod = one(objects, "Deployment", "kars-controller")["spec"]["template"]
    assert controllers["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    assert [port["name"] for port in pod["spec"]["containers"][0]["ports"]] == ["metrics"]
