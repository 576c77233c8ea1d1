"""The dashboard file by itself; its queries are asked in tests/serve/test_dashboard.py."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from itertools import combinations
from typing import Any

import pytest
import yaml

from tests.support.application import ROOT
from tests.support.prometheus import CONFIGURATION, DASHBOARD, queries, resolved

PROVISIONING = ROOT / "cluster" / "grafana" / "provisioning"


@pytest.fixture
def dashboard() -> Any:
    return json.loads(DASHBOARD.read_text())


def test_panels_are_told_apart_and_do_not_overlap(dashboard: Any) -> None:
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({panel["title"] for panel in panels}) == len(panels)
    for one, other in combinations((panel["gridPos"] for panel in panels), 2):
        apart = (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        )
        assert apart, (one, other)
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in panels)


def test_every_panel_says_what_it_shows_and_asks_the_chosen_datasource(dashboard: Any) -> None:
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            continue
        assert panel["description"]
        assert panel["targets"]
        for target in (panel, *panel["targets"]):
            assert target["datasource"]["uid"] == "${datasource}"


def test_variables_are_those_that_are_used(dashboard: Any) -> None:
    defined = {variable["name"] for variable in dashboard["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", DASHBOARD.read_text())) - {"__rate_interval", "__all"}
    assert used == defined


def test_it_has_what_it_is_for() -> None:
    asked = " ".join(query for _, query in queries())
    for name in (
        "offset $before",
        "rayspec_output_tokens_total",
        "histogram_quantile(0.99",
        "rayspec_accepted_tokens_total",
        "rayspec_breakeven_acceptance",
        "sum by (lane) (rate(rayspec_requests_total",
    ):
        assert name in asked


def test_the_chart_of_time_over_load_draws_columns_that_exist(dashboard: Any) -> None:
    (panel,) = (panel for panel in dashboard["panels"] if panel["type"] == "xychart")
    columns = {target["legendFormat"] for target in panel["targets"]}
    for series in panel["options"]["series"]:
        assert series["x"]["matcher"]["options"] in columns
        assert series["y"]["matcher"]["options"] in columns


def test_grafana_finds_the_dashboard_and_its_datasource() -> None:
    (source,) = yaml.safe_load((PROVISIONING / "datasources/prometheus.yaml").read_text())[
        "datasources"
    ]
    (provider,) = yaml.safe_load((PROVISIONING / "dashboards/rayspec.yaml").read_text())[
        "providers"
    ]
    assert source["type"] == "prometheus"
    compose = yaml.safe_load((ROOT / "cluster/compose.yaml").read_text())
    mounted = {volume.split(":")[1] for volume in compose["services"]["grafana"]["volumes"]}
    assert provider["options"]["path"] in mounted
    host = source["url"].removeprefix("http://").split(":")[0]
    assert host in compose["services"]
    interval = yaml.safe_load(CONFIGURATION.read_text())["global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == interval


def test_prometheus_takes_the_configuration_and_every_query(tmp_path: Any) -> None:
    if (promtool := shutil.which("promtool")) is None:
        pytest.skip("needs promtool: install Debian's package prometheus")
    subprocess.run([promtool, "check", "config", CONFIGURATION], check=True)
    rules = [
        {"record": f"r{at}", "expr": resolved(query, interval="1m", before="1h")}
        for at, (_, query) in enumerate(queries())
    ]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": rules}]}))
    done = subprocess.run(
        [promtool, "check", "rules", file], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
